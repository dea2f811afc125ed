"""Sums and means over what counts, safe against NaN in what does not."""

import torch
from torch import Tensor


def clean(mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Replace masked slots by 0 before any nonlinearity.

    Masking a result is not enough: the gradient through a masked `exp(nan)` is 0 · NaN = NaN.
    """
    return tuple(torch.where(mask, tensor, torch.zeros_like(tensor)) for tensor in tensors)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the slots where `mask` is True; a scalar."""
    (kept,) = clean(mask, values)
    return kept.sum()


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Sum over the mask divided by `count`, by default the number of True slots (at least 1)."""
    return masked_sum(values, mask) / (mask.sum().clamp(min=1) if count is None else count)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over exactly the True slots; masked slots become 0.

    The variance has no floor beyond 1e-8: a larger one would shrink small advantages silently. With fewer than two
    valid slots the values are returned as they are.
    """
    return _standardise(values, mask, keep_mean=False)


def scale_to_unit(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation 1 over exactly the True slots with the mean left where it is; else as `whiten`.

    What Ziegler et al. 2019 (arXiv:1909.08593) do to rewards: shifting them would change what an early end is worth.
    """
    return _standardise(values, mask, keep_mean=True)


def _standardise(values: Tensor, mask: Tensor, *, keep_mean: bool) -> Tensor:
    (values,) = clean(mask, values)
    count = mask.sum()
    if count < 2:
        return values
    mean = values.sum() / count
    centred = torch.where(mask, values - mean, torch.zeros_like(values))
    scaled = centred * torch.rsqrt((centred**2).sum() / count + 1e-8)
    return torch.where(mask, scaled + mean, torch.zeros_like(values)) if keep_mean else scaled
