"""The types that are computed in: of products, and of sums that need more digits."""

import torch
from torch import Tensor

WITHOUT_DOUBLES = frozenset({"mps"})  # Apple's GPUs


def has_doubles(device: torch.device) -> bool:
    """Whether f64 exists there."""
    return device.type not in WITHOUT_DOUBLES


def exact(tensor: Tensor) -> Tensor:
    """The tensor in f64; from a device that has none, on the CPU."""
    return (tensor if has_doubles(tensor.device) else tensor.cpu()).double()


def computed_in(query: Tensor) -> torch.dtype:
    """The type that products of these queries are computed in: autocast's where it is on."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
