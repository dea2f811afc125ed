"""The Hugging Face model under its adapters."""

import copy
from typing import Any

from torch import nn


def is_adapted(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter")


def bare(model: nn.Module) -> Any:
    """The Hugging Face model itself, under the adapters if there are any."""
    return model.get_base_model() if is_adapted(model) else model  # type: ignore[operator]


def merged(model: nn.Module) -> Any:
    """The Hugging Face model with its adapters in its weights: a copy on the CPU, or the model itself without any.

    The copy is made there, and the model moved back: at the end of a run the device may have no room for two.
    """
    if not is_adapted(model):
        return model
    device = next(model.parameters()).device
    whole: Any = copy.deepcopy(model.to("cpu"))
    model.to(device)
    return whole.merge_and_unload()
