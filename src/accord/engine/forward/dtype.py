"""The type that products are computed in."""

import torch
from torch import Tensor


def computed_in(query: Tensor) -> torch.dtype:
    """The type that products of these queries are computed in: autocast's where it is on."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
