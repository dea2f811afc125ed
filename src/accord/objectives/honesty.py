"""Honesty as numbers to optimise: whether a model knows, and what a stated chance of being right is worth."""

import torch.nn.functional as F
from torch import Tensor

Losses = tuple[Tensor, dict[str, Tensor]]


def knowledge_loss(logits: Tensor, shares: Tensor, *, count: Tensor | float) -> Losses:
    """Σ −[q log σ(s) + (1 − q) log σ(−s)] / count: the cross-entropy of P(IK) = σ(s) and the share q of right samples.

    Kadavath et al. 2022 (arXiv:2207.05221), section 5, where a question stands once for each of 30 samples, as known
    or not: the same sum. `logits` and `shares` are (N,), one entry a question.
    """
    loss = F.binary_cross_entropy_with_logits(logits, shares, reduction="sum") / count
    return loss, {"loss": loss.detach()}


def brier_reward(right: Tensor, stated: Tensor) -> Tensor:
    """R = y − (q − y)² of answers (N,): y is 1 where right and 0 where wrong, q in [0, 1] the chance that is stated.

    RLCR (Damani et al. 2025, arXiv:2507.16806). With p the true chance of being right the mean is
    p − p(1 − q)² − (1 − p)q², highest for q = p, where it is p²: it pays to be right and to say how likely one is. An
    answer that is sure and wrong has −1, one that is wrong and says so 0.
    """
    return right - (stated - right) ** 2
