"""Muon: momentum whose update is made orthogonal, for the hidden matrices of a model.

torch's own works on one matrix at a time in bfloat16, which a CPU without bf16 units emulates: a third of a step for
the small models trained here. This one takes all matrices of a shape at once, in f32 on a CPU. Of a sharded matrix
every rank makes the whole update, which has no part that stands alone, and takes its own rows of it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from accord.training.shards import local, own_part, whole_tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, from the post
ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (N, m, n) to nearly orthogonal ones, singular values about 0.7 to 1.2, by Newton–Schulz iteration."""
    a, b, c = COEFFICIENTS
    x = matrices.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else matrices
    if x.is_cuda:
        x = x.bfloat16()
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]  # the spectral norm is at most this one
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by √max(1, rows / columns) (Jordan et al. 2024); decoupled decay."""

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on every matrix that has a gradient."""
        if closure is not None:
            raise TypeError("Muon takes no closure: compute the gradients first")
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                self._step(group, parameters, math.sqrt(max(1.0, rows / columns)))

    def _step(self, group: dict[str, Any], parameters: list[Tensor], factor: float) -> None:
        momentum, updates = group["momentum"], []
        for parameter in parameters:
            grad = parameter.grad
            assert grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(grad)
            state["momentum_buffer"].lerp_(grad, 1 - momentum)
            updates.append(whole_tensor(grad.lerp(state["momentum_buffer"], momentum)))
        for parameter, update in zip(parameters, orthogonalise(torch.stack(updates)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            local(parameter).add_(own_part(update, parameter), alpha=-group["lr"] * factor)
