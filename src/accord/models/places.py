"""Where a model is, and what its files say of it: a directory, OWNER/NAME[@REVISION] on the hub, or a GGUF file."""

import importlib.util
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.utils import cached_file

from accord.config import hub_id
from accord.errors import BadInput, is_disk_full

# the key of config.json that holds role, criterion and normaliser: it travels wherever the model goes
DESCRIPTION = "accord"
POLICY = {"role": "policy", "criterion": "", "normalizer": {"kind": "none"}}
KNOWLEDGE = "knowledge"  # the role of a P(IK) head, which reads prompts and no replies
ADAPTER = "adapter_config.json"
SAFE_ALONE = (
    "; weights are read from safetensors alone, a pickle (*.bin, *.pt) is never opened: load it where you trust it, "
    "and write it again with save_pretrained"
)


def asked_for(where: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` is given for a place: a name, and options beside it. BadInput if it is no such place."""
    folder = Path(where)
    if folder.is_dir():
        if not _holds_model(folder):
            inside = folder / "snapshot"
            hint = f"; did you mean {inside}?" if inside.is_dir() else ""
            raise BadInput(f"{where}: no config.json there, so it is no snapshot{hint}")
        return where, {}
    if is_gguf(where):
        if importlib.util.find_spec("gguf") is None:
            raise BadInput(f"{where}: reading GGUF needs gguf; install it with: pip install 'accord[gguf]'")
        return str(folder.parent), {"gguf_file": folder.name}
    if folder.exists():
        raise BadInput(f"{where} is a file; a snapshot is a directory, or one file NAME.gguf")
    name, revision = hub_id(where)
    if not name:
        raise BadInput(f"{where}: no such directory (and not a hub id of the form OWNER/NAME or OWNER/NAME@REVISION)")
    return name, {"revision": revision} if revision else {}


def whole_name(where: str) -> str:
    """The place as an adapter names its base: another program, in another folder, must find a directory by it."""
    return str(Path(where).resolve()) if Path(where).exists() else where


def is_gguf(where: str) -> bool:
    """Whether a place is a file of llama.cpp's format."""
    return where.lower().endswith(".gguf") and Path(where).is_file()


@contextmanager
def reading(where: str, what: str) -> Iterator[None]:
    """What a library says of a place that it cannot read is BadInput; a full disk stays what it is."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError, struct.error) as error:
        if is_disk_full(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        missing = isinstance(error, OSError) and ".safetensors" in said
        raise BadInput(f"{where}: cannot be loaded as {what} ({said})" + (SAFE_ALONE if missing else "")) from None


def read_config(where: str) -> Any:
    """The model's Hugging Face config; that of its base where the place is an adapter's."""
    place = base_of(where) or where
    name, options = asked_for(place)
    file = Path(name) / "config.json"
    with reading(where, "a Hugging Face model"):
        if is_gguf(place):
            return AutoConfig.from_pretrained(name, **options)
        return deepcopy(_config(name, options.get("revision"), file.read_bytes() if file.is_file() else b""))


@lru_cache(maxsize=64)
def _config(name: str, revision: str | None, written: bytes) -> Any:
    """A stage asks for its models two dozen times: the hub is asked once, a file is read while it says the same."""
    return AutoConfig.from_pretrained(name, revision=revision or "main")


def most_positions(config: Any) -> int:
    """How many tokens a model of this config reads at once; 0 where it names no number."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)


def read_tokenizer(where: str) -> Any:
    """The model's tokenizer as it was saved; that of its base where an adapter has none."""
    name, options = _asked_with(where, "tokenizer_config.json")
    with reading(where, "a tokenizer"):
        return AutoTokenizer.from_pretrained(name, **options)


def read_generation(where: str) -> GenerationConfig | None:
    """The model's generation config, or its base's where an adapter has none; None where there is none at all."""
    name, options = _asked_with(where, "generation_config.json")
    if is_gguf(where):
        return None
    try:
        return GenerationConfig.from_pretrained(name, **options)
    except OSError:
        return None


def _asked_with(where: str, file: str) -> tuple[str, dict[str, str]]:
    """What is asked for a file of a model: the model, or the base of an adapter that has no such file."""
    base = base_of(where)
    return asked_for(base if base and not (Path(where) / file).is_file() else where)


def describe(where: str) -> dict[str, Any]:
    """Role (policy, preference, cost or knowledge), criterion and normaliser of a model, from its config alone.

    Accord writes them into `config.json` (up to 0.1.0 into a file of their own); any other classifier is a preference
    model, and all else a policy.
    """
    asked_for(where)
    if is_gguf(where):
        return dict(POLICY)
    if (before := Path(where) / "accord.json").is_file():
        return _read(before)
    if base_of(where):
        classifies = _adapter(where).get("task_type") == "SEQ_CLS"
        return {**POLICY, "role": "preference"} if classifies else dict(POLICY)
    config = read_config(where)
    classifies = any("SequenceClassification" in name for name in config.architectures or [])
    written: dict[str, Any] = getattr(config, DESCRIPTION, None) or {}
    if written and (written["role"] != "policy") == classifies:
        return dict(written)
    return {**POLICY, "role": "preference" if classifies else "policy"}


def heads_of(described: dict[str, Any]) -> list[str]:
    """The names of a scalar model's heads: its criteria, or groups of labelers."""
    heads: list[str] = described.get("heads") or [described["criterion"]]
    return heads


def base_of(where: str) -> str:
    """The model that an adapter's directory builds on; empty where there is no adapter.

    A base that was named from another folder is looked for beside the adapter too.
    """
    if not (Path(where) / ADAPTER).is_file():
        return ""
    base = _named_base(where)
    beside = Path(where) / base
    if base and not _holds_model(Path(base)) and _holds_model(beside):
        return os.path.normpath(beside)
    if not base or not (hub_id(base)[0] or Path(base).is_dir()):
        raise BadInput(
            f"{where}: its base {base or '(none is named)'} is not there; set base_model_name_or_path in {ADAPTER}"
        )
    return base


def adapter_beside(where: str, on: str) -> str:
    """The directory of the adapters beside a snapshot's whole weights, where `on` is the model that they build on.

    Empty where there are none, where they build on another, and where `on` is empty.
    """
    folder = Path(where) / "adapter"
    if not on or not (folder / ADAPTER).is_file():
        return ""
    return str(folder) if whole_name(_named_base(str(folder))) == whole_name(on) else ""


def labels_of_adapter(where: str) -> int:
    """How many labels the head beside an adapter of a classifier gives."""
    with safe_open(Path(where) / "adapter_model.safetensors", "pt") as weights:
        heads = [key for key in weights.keys() if "lora_" not in key and key.endswith("weight")]  # noqa: SIM118
        return int(weights.get_slice(heads[0]).get_shape()[0]) if heads else 1


def refuse_hub_adapter(where: str) -> None:
    """An adapter on the hub would be taken with its base in silence, and from a pickle where it has nothing else."""
    name, options = asked_for(where)
    if Path(name).is_dir():
        return
    quiet: dict[str, Any] = {
        f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "gated_repo", "connection_errors")
    }
    if cached_file(name, ADAPTER, **options, **quiet) is not None:
        raise BadInput(f"{where} is an adapter: download it, and give the directory")


def _named_base(where: str) -> str:
    """The base as an adapter names it, with the revision of a hub model; empty where it names none."""
    described = _adapter(where)
    base, revision = str(described.get("base_model_name_or_path") or ""), described.get("revision")
    return f"{base}@{revision}" if revision and hub_id(base)[0] else base


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / ADAPTER).is_file()


def _adapter(where: str) -> dict[str, Any]:
    return _read(Path(where) / ADAPTER)


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{file}: not valid JSON ({error}); make the snapshot again") from None
    return found
