"""AdamW, in f32 or with moments of 8 bits, Muon, and their schedule."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from accord.training.muon import Muon
from accord.training.shards import local

BETAS, EPSILON = (0.9, 0.95), 1e-8


def build_optimizer(
    parameters: Iterable[nn.Parameter], *, weight_decay: float, bits: int = 32
) -> torch.optim.Optimizer:
    """Fused AdamW (β 0.9, 0.95; ε 1e-8), its moments in so many `bits`; matrices decay, vectors (norms, biases) never.

    What every rank holds whole comes before what is sharded, in groups of their own: one call updates only tensors of
    a kind, and states keep their places from a run with `--shard` to one without.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {
            "params": [p for p in trained if (p.ndim >= 2) == matrix and isinstance(p, DTensor) == sharded],
            "weight_decay": weight_decay if matrix else 0.0,
        }
        for matrix in (True, False)
        for sharded in (False, True)
    ]
    groups = [g for g in groups if g["params"]]
    if bits == 8:
        from accord.training.eight_bits import AdamW8

        return AdamW8(groups, lr=0.0, betas=BETAS, eps=EPSILON)
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPSILON, fused=True)


def build_optimizers(
    module: nn.Module, *, weight_decay: float, with_muon: bool, bits: int = 32
) -> dict[str, torch.optim.Optimizer]:
    """AdamW for everything; or Muon (Jordan et al. 2024; momentum 0.95) for the hidden matrices and AdamW for the rest.

    Hidden matrices are the weights of linear layers except those that read out: the language-model head, which may
    be tied to the embedding, and a scalar head.
    """
    heads = {
        id(p)
        for name, m in module.named_modules()
        if name.endswith(("lm_head", "embed_out", "score"))
        for p in m.parameters()
    }
    hidden = [m.weight for m in module.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad]
    matrices = {id(p): p for p in hidden if id(p) not in heads} if with_muon else {}
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adamw": build_optimizer(
            (p for p in module.parameters() if id(p) not in matrices), weight_decay=weight_decay, bits=bits
        )
    }
    if matrices:
        optimizers["muon"] = Muon(matrices.values(), lr=0.0, weight_decay=weight_decay)
    return optimizers


def rate_at(step: int, steps: int, *, peak: float, warmup: float, schedule: str, hold: float = 0.0) -> float:
    """Learning rate of `step` (from 0): linear rise over `warmup`·steps, `hold`·steps at the peak, fall to 10 %.

    `schedule` is constant, linear or cosine. A pure function of the step, so nothing of it needs saving.
    """
    rise = warmup * steps
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    start = max(rise, hold * steps)
    progress = min(1.0, max(0.0, (step - start) / max(1.0, steps - 1 - start)))
    falls = {
        "constant": 1.0,
        "linear": 1.0 - 0.9 * progress,
        "cosine": 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress)),
    }
    return peak * falls[schedule]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale the gradients to a norm of at most `limit`; returns the norm before, which may be no finite number.

    Gradients that are not finite are left as they are: the caller takes no step.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = gradient_norm(grads)
    if norm.isfinite():
        factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
        for grad in grads:
            local(grad).mul_(factor.to(grad.device))
    return float(norm)


def gradient_norm(grads: Sequence[Tensor]) -> Tensor:
    """The norm () over all gradients, those parts included that other ranks hold."""
    if not grads:
        return torch.zeros(())
    norms = torch.stack([torch.linalg.vector_norm(local(grad)).to(grads[0].device) for grad in grads])
    apart = torch.tensor([isinstance(grad, DTensor) for grad in grads], device=norms.device)
    if apart.any():
        squares = norms.square() * apart
        dist.all_reduce(squares)
        norms = torch.where(apart, squares.sqrt(), norms)
    return torch.linalg.vector_norm(norms)
