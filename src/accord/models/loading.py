"""Models from a size, a directory or a hub id, with optional LoRA adapters; and back to a Hugging Face directory."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from accord.config import Adapters
from accord.engine.forward.adapters import is_adapted
from accord.engine.forward.attention import IMPLEMENTATION
from accord.errors import BadInput, is_disk_full

SAFE_ALONE = (
    "; weights are read from safetensors alone, a pickle (*.bin, *.pt) is never opened: load it where you trust it, "
    "and write it again with save_pretrained"
)

# loading and saving a small model is no progress worth a bar
transformers_logging.disable_progress_bar()


def load_policy(where: str, *, trainable: bool = True) -> nn.Module:
    """A causal language model (f32 weights); LoRA adapters saved in the directory stay adapters.

    Raises BadInput where a preference or cost model is given instead.
    """
    described = describe(where)
    if described["role"] != "policy":
        raise BadInput(f"{where} is a {described['role']} model, not a policy; give a snapshot of pretrain, sft or ppo")
    return _load(AutoModelForCausalLM, where, trainable)


def load_scalar(where: str, *, role: str, trainable: bool = False) -> nn.Module:
    """A preference or cost model; BadInput if the directory holds another role."""
    described = describe(where)
    if described["role"] != role:
        flag = "--costs" if role == "cost" else "--rewards"
        raise BadInput(f"{where} is a {described['role']} model, but {flag} needs a {role} model")
    return _load(AutoModelForSequenceClassification, where, trainable)


def _load(kind: Any, where: str, trainable: bool) -> nn.Module:
    adapted = base_of(where)
    base = adapted or where
    options = {"num_labels": len(heads_of(describe(where)))} if adapted and kind is not AutoModelForCausalLM else {}
    with reading(where, "a model"):
        refuse_hub_adapter(where)
        model = pretrained(kind, base, where if adapted else "", trainable=trainable, **options)
    if not trainable:
        model.requires_grad_(False)
    model.eval()
    result: nn.Module = model
    return result


def refuse_hub_adapter(where: str) -> None:
    """An adapter on the hub would be taken with its base in silence, and from a pickle where it has nothing else."""
    if Path(where).is_dir():
        return
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "gated_repo", "connection_errors")}
    if cached_file(where, "adapter_config.json", **quiet) is not None:
        raise BadInput(f"{where} is an adapter: download it, and give the directory")


@contextmanager
def reading(where: str, what: str) -> Iterator[None]:
    """What a library says of a directory or hub id that it cannot read is BadInput; a full disk stays what it is."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if is_disk_full(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        missing = isinstance(error, OSError) and ".safetensors" in said
        raise BadInput(f"{where}: cannot be loaded as {what} ({said})" + (SAFE_ALONE if missing else "")) from None


def base_of(where: str) -> str:
    """The snapshot or hub id that an adapter's directory builds on; empty where there is no adapter."""
    adapter = Path(where) / "adapter_config.json"
    return str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]) if adapter.is_file() else ""


def pretrained(kind: Any, where: str, adapter: str = "", *, trainable: bool = True, **options: Any) -> Any:
    """A model of a transformers class in f32, with the adapter of a directory if one is named, and no dropout.

    A score must not depend on the draw of a mask, so every rate is 0: those of layers, and those that modules hand to
    functions. Raises what the class raises where there is no such model.
    """
    model = kind.from_pretrained(
        where, attn_implementation=IMPLEMENTATION, dtype=torch.float32, use_safetensors=True, **options
    )
    if adapter:
        from peft import PeftModel

        if not (Path(adapter) / "adapter_model.safetensors").is_file():  # it would open adapter_model.bin
            raise OSError("no file named adapter_model.safetensors")
        model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def describe(where: str) -> dict[str, Any]:
    """Role (policy, preference or cost), criterion and normaliser of a snapshot, from its config alone."""
    _check_place(where)
    folder = Path(where)
    written = folder / "accord.json"
    if written.is_file():
        try:
            described: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{written}: not valid JSON ({error}); make the snapshot again") from None
        return described
    with reading(where, "a Hugging Face model"):
        architectures = AutoConfig.from_pretrained(where).architectures or []
    classifier = any("SequenceClassification" in name for name in architectures)
    return {"role": "preference" if classifier else "policy", "criterion": "", "normalizer": {"kind": "none"}}


def heads_of(described: dict[str, Any]) -> list[str]:
    """The names of a scalar model's heads: its criteria, or groups of labelers."""
    heads: list[str] = described.get("heads") or [described["criterion"]]
    return heads


def _check_place(where: str) -> None:
    folder = Path(where)
    if folder.is_dir():
        if not ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
            inside = folder / "snapshot"
            hint = f"; did you mean {inside}?" if inside.is_dir() else ""
            raise BadInput(f"{where}: no config.json there, so it is no snapshot{hint}")
    elif folder.exists():
        raise BadInput(f"{where} is a file; a snapshot is a directory")
    elif where.count("/") != 1 or where.startswith((".", "/", "~")):
        raise BadInput(f"{where}: no such directory (and not a hub id of the form OWNER/NAME)")


def add_adapters(model: nn.Module, config: Adapters, *, scalar: bool, seed: int) -> nn.Module:
    """Wrap the model in trainable LoRA adapters if `lora_rank` asks for them; a scalar head stays trainable.

    A snapshot that is an adapter already goes on with it: another on top could not be saved without losing it.
    """
    if not config.lora_rank:
        return model
    if is_adapted(model):
        rank = model.active_peft_config.r  # type: ignore[union-attr]
        if rank != config.lora_rank:
            raise BadInput(
                f"--lora_rank {config.lora_rank}: the snapshot is an adapter of rank {rank} already, and training "
                f"goes on with it; give --lora_rank {rank}"
            )
        return model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    targets: str | list[str] = (
        config.lora_targets if config.lora_targets == "all-linear" else config.lora_targets.split(",")
    )
    wrapped: nn.Module = get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules=targets,
            task_type="SEQ_CLS" if scalar else "CAUSAL_LM",
            modules_to_save=["score"] if scalar else None,
        ),
    )
    return wrapped
