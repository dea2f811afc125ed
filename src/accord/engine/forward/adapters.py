"""The Hugging Face model under its adapters."""

import copy
from typing import Any

import torch
from torch import nn

from accord.engine.forward.four_bits import FourBitLinear

WHOLE = "_accord_whole"  # of a model with frozen matrices in fewer bits, under adapters: what loads it again in f32


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
    unround(whole)
    return whole.merge_and_unload()


def unround(model: nn.Module) -> None:
    """Of frozen matrices in fewer bits read the f32 numbers again from where the model came from, if there are any."""
    inner = bare(model)
    if not hasattr(inner, WHOLE):
        return
    full = dict(vars(inner).pop(WHOLE)().named_modules())
    for name, module in list(inner.named_modules()):
        if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16:
            weight = full[name.removesuffix(".base_layer")].weight
            module.weight.data = weight.data.to(module.weight.device)
        elif isinstance(getattr(module, "base_layer", None), FourBitLinear):
            module.base_layer = full[name].to(module.base_layer.codes.device)
