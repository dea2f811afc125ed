"""Scores from comparisons: Bradley–Terry rankings and the cost model of Safe RLHF."""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(
    better: Tensor, worse: Tensor, *, weights: Tensor, margin: Tensor | float = 0.0, count: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ w · −log σ(s_better − s_worse − margin) / count, Bradley and Terry 1952; HH (arXiv:2204.05862) section 2.

    All (N,): one entry per ordered pair. A K-wise ranking contributes its C(K, 2) pairs with weight 1/C(K, 2)
    each, so that a prompt counts once (InstructGPT, arXiv:2203.02155, eq. 1). `count` is the sum of the weights
    in the whole batch. Accuracy counts equal scores as one half.
    """
    difference = better - worse
    loss = -(weights * F.logsigmoid(difference - margin)).sum() / count
    with torch.no_grad():
        right = (difference > 0).float() + 0.5 * (difference == 0).float()
        metrics = {
            "loss/ranking": loss.detach(),
            "accuracy": (weights * right).sum() / count,
            "margin": (weights * difference).sum() / count,
        }
    return loss, metrics


def sign_loss(costs: Tensor, unsafe: Tensor, *, count: Tensor | float) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ −log σ(s · C) / count with s = +1 for an unsafe reply and −1 for a safe one: it puts the boundary at 0.

    `costs` (N,), `unsafe` (N,) bool. These are the last two terms of Safe RLHF (arXiv:2310.12773), section 3.2; give
    half the number of labelled replies as `count` and a fully labelled pair weighs exactly as it does there.
    """
    signs = torch.where(unsafe, 1.0, -1.0).to(costs.dtype)
    loss = -F.logsigmoid(signs * costs).sum() / count
    with torch.no_grad():
        right = ((costs > 0) == unsafe).float()
        metrics = {"loss/sign": loss.detach(), "accuracy_sign": right.sum() / (2 * count)}
    return loss, metrics


def score_regularizer(scores: Tensor, *, weight: float, count: Tensor | float) -> Tensor:
    """`weight` · Σ score² / count: keeps scores finite on separable data. `scores` (N,)."""
    return weight * (scores.float() ** 2).sum() / count
