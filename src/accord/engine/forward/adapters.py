"""The Hugging Face model under its adapters."""

from typing import Any

from torch import nn


def is_adapted(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter")


def bare(model: nn.Module) -> Any:
    """The Hugging Face model itself, under the adapters if there are any."""
    return model.get_base_model() if is_adapted(model) else model  # type: ignore[operator]
