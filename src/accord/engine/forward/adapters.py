"""The Hugging Face model under its adapters."""

import copy
from typing import Any

import torch
from torch import nn

WHOLE = "_accord_whole"  # of a model with frozen matrices in bf16, under adapters: what loads it again in f32


def is_adapted(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter")


def bare(model: nn.Module) -> Any:
    """The Hugging Face model itself, under the adapters if there are any."""
    return model.get_base_model() if is_adapted(model) else model  # type: ignore[operator]


def merged(model: nn.Module) -> Any:
    """The Hugging Face model with its adapters in its weights: a copy on the CPU, or the model itself without any.

    The copy is made there, and the model moved back: at the end of a run the device may have no room for two. Of
    matrices that are held in bf16 it has the f32 numbers that they were rounded from.
    """
    if not is_adapted(model):
        return model
    device = next(model.parameters()).device
    whole: Any = copy.deepcopy(model.to("cpu"))
    model.to(device)
    if hasattr(bare(whole), WHOLE):
        _unround(bare(whole))
    return whole.merge_and_unload()


def _unround(inner: Any) -> None:
    """f32 numbers from where the model came from, in place of those in bf16."""
    full = dict(vars(inner).pop(WHOLE)().named_modules())
    for name, module in inner.named_modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16:
            module.weight.data = full[name.removesuffix(".base_layer")].weight.data
