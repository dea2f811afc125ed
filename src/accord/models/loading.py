"""Models from a directory, a hub id or a GGUF file, in f32 and without dropout; and LoRA adapters on them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from accord.config import Adapters, hub_id
from accord.engine.forward.attention import IMPLEMENTATION
from accord.errors import BadInput
from accord.lineage import hub_revision
from accord.models.places import (
    KNOWLEDGE,
    adapter_beside,
    asked_for,
    base_of,
    describe,
    is_gguf,
    labels_of_adapter,
    reading,
    refuse_hub_adapter,
    whole_name,
)

NEW_HEAD = frozenset({"score.weight"})
FLAGS = {"cost": "--costs", KNOWLEDGE: "--knows"}  # of roles; any other is asked for by --rewards

# loading and saving a small model is no progress worth a bar
transformers_logging.disable_progress_bar()


def load_policy(where: str, *, trainable: bool = True) -> nn.Module:
    """A causal language model (f32 weights).

    Raises BadInput where a preference or cost model is given instead.
    """
    described = describe(where)
    if described["role"] != "policy":
        raise BadInput(f"{where} is a {described['role']} model, not a policy; give a snapshot of pretrain, sft or ppo")
    return _load(AutoModelForCausalLM, where, trainable)


def load_scalar(where: str, *, role: str, trainable: bool = False, on: str = "") -> nn.Module:
    """A preference or cost model, or a P(IK) head; BadInput if the directory holds another role.

    One that was trained as adapters on the model `on` is those adapters on it, so that roles can share its weights.
    """
    described = describe(where)
    if described["role"] != role:
        flag = FLAGS.get(role, "--rewards")
        raise BadInput(f"{where} is a {described['role']} model, but {flag} needs a {role} model")
    return _load(AutoModelForSequenceClassification, where, trainable, adapter_beside(where, on))


def load_again(where: str) -> nn.Module:
    """A model of whatever role, frozen."""
    role = describe(where)["role"]
    return load_policy(where, trainable=False) if role == "policy" else load_scalar(where, role=role)


def _load(kind: Any, where: str, trainable: bool, adapter: str = "") -> nn.Module:
    with reading(where, "a model"):
        refuse_hub_adapter(where)
        if adapter:
            model = adapted(kind, adapter, trainable=trainable)
        else:
            model = merged(adapted(kind, where), where) if base_of(where) else pretrained(kind, where)
    if not trainable:
        model.requires_grad_(False)
    model.eval()
    result: nn.Module = model
    return result


def adapted(kind: Any, where: str, *, trainable: bool = False) -> Any:
    """The base of an adapter's directory under the adapter."""
    from peft import PeftModel

    from accord.engine.forward.low_rank import in_one_node

    if not (Path(where) / "adapter_model.safetensors").is_file():  # it would open adapter_model.bin
        raise OSError("no file named adapter_model.safetensors")
    options = {} if kind is AutoModelForCausalLM else {"num_labels": labels_of_adapter(where)}
    base = pretrained(kind, base_of(where), new_head=True, **options)
    with no_alarms():
        return in_one_node(PeftModel.from_pretrained(base, where, is_trainable=trainable))


def merged(model: Any, where: str) -> Any:
    """A whole model of a base and the adapter of a directory."""
    whole = model.merge_and_unload()
    whole.name_or_path = whole_name(where)
    return whole.requires_grad_(True)


@contextmanager
def no_alarms() -> Iterator[None]:
    """Silence what alarms for nothing.

    The loader's table of weights that a model lacks, or has and does not need: `pretrained` judges it. And peft's use
    of a property that transformers will rename.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)


def pretrained(kind: Any, where: str, *, new_head: bool = False, **options: Any) -> Any:
    """A model of a transformers class in f32 and without dropout; of its weights, a `new_head` alone may be missing.

    A score must not depend on the draw of a mask, so every rate is 0: those of layers, and those that modules hand to
    functions. Raises what the class raises where there is no such model.
    """
    name, found = asked_for(where)
    if is_gguf(where):
        options = options | dequantised(where)
    options |= {"attn_implementation": IMPLEMENTATION, "dtype": torch.float32, "output_loading_info": True}
    with no_alarms():
        model, info = kind.from_pretrained(name, use_safetensors=True, **found, **options)
    if missing := sorted(set(info["missing_keys"]) - (NEW_HEAD if new_head else frozenset())):
        raise OSError(f"no weights in it for {', '.join(missing[:3])}")
    if is_gguf(where):
        forget_quantisation(model)
    model.name_or_path = whole_name(where)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for attribute, value in vars(module).items():
            if "drop" in attribute and isinstance(value, float):
                setattr(module, attribute, 0.0)
    return model


def dequantised(where: str) -> dict[str, Any]:
    """What makes transformers hand out the plain weights of a GGUF file, which it keeps quantised otherwise."""
    from transformers import GgufConfig

    print(f"{where}: GGUF weights are read as they were rounded when it was made, dequantised to f32", flush=True)
    return {"quantization_config": GgufConfig(dequantize=True)}


def forget_quantisation(model: Any) -> None:
    """Let a dequantised model be saved: its class still holds it for a quantised one."""
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer = None
    model.is_quantized = False


def add_adapters(model: nn.Module, config: Adapters, *, scalar: bool, seed: int) -> nn.Module:
    """Wrap the model in trainable LoRA adapters if `lora_rank` asks for them; a scalar head stays trainable.

    The adapters name the model as their base: by its whole path, or by hub id and commit.
    """
    if not config.lora_rank:
        return model
    from peft import LoraConfig, get_peft_model

    from accord.engine.forward.low_rank import in_one_node

    named: Any = model.name_or_path
    torch.manual_seed(seed)
    targets: str | list[str] = (
        config.lora_targets if config.lora_targets == "all-linear" else config.lora_targets.split(",")
    )
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=targets,
        task_type="SEQ_CLS" if scalar else "CAUSAL_LM",
        modules_to_save=["score"] if scalar else None,
        revision=hub_revision(named),
    )
    with no_alarms():
        wrapped: Any = get_peft_model(model, adapters)
    wrapped.peft_config["default"].base_model_name_or_path = hub_id(named)[0] or named
    return in_one_node(wrapped)
