"""Scores from what people say: comparisons of two replies and, one reply at a time, labels and ratings.

Rankings of more replies are in `ranking.py`. Every loss is a weighted sum divided by `count`, the sum of the weights
in the whole optimizer batch, so that micro-batches add up to it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Losses = tuple[Tensor, dict[str, Tensor]]


def bradley_terry_loss(
    better: Tensor,
    worse: Tensor,
    *,
    weights: Tensor,
    margin: Tensor | float = 0.0,
    probability: Tensor | float = 1.0,
    reliability: Tensor | None = None,
    count: Tensor | float,
) -> Losses:
    """Σ w · −[p log P + (1 − p) log(1 − P)] / count with P = σ(s_better − s_worse − margin).

    Bradley and Terry 1952; HH (arXiv:2204.05862) section 2. All (N,): one entry per ordered pair. A K-wise ranking
    contributes its C(K, 2) pairs with weight 1/C(K, 2) each, so that a prompt counts once (InstructGPT,
    arXiv:2203.02155, eq. 1). `probability` p is the labeler's that the pair is ordered so (soft labels, label
    smoothing); 1 is a plain label. `margin` in logits is by how much more than nothing the better reply should lead
    (Llama 2, arXiv:2307.09288, section 3.2.2). `reliability` r, in (0, 1), is how often whoever labelled the pair says
    what they find, and then P = r σ(d) + (1 − r) σ(−d) (Crowd-BT, Chen et al. 2013). Accuracy counts equal scores as
    one half.
    """
    difference = better - worse
    agree, contradict = F.logsigmoid(difference - margin), F.logsigmoid(margin - difference)
    if reliability is not None:
        agree, contradict = _seen_through(agree, contradict, reliability)
    soft = torch.as_tensor(probability, dtype=difference.dtype, device=difference.device)
    loss = -(weights * (soft * agree + (1 - soft) * contradict)).sum() / count
    return loss, {"loss/ranking": loss.detach(), **order_metrics(difference, weights, count)}


def _seen_through(agree: Tensor, contradict: Tensor, reliability: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs of both answers of somebody who says the other with probability 1 − r."""
    says, slips = reliability.log(), torch.log1p(-reliability)
    return torch.logaddexp(says + agree, slips + contradict), torch.logaddexp(says + contradict, slips + agree)


def order_metrics(difference: Tensor, weights: Tensor, count: Tensor | float) -> dict[str, Tensor]:
    """Accuracy (equal scores are half right) and mean of s_better − s_worse (N,), without gradient."""
    with torch.no_grad():
        right = (difference > 0).float() + 0.5 * (difference == 0).float()
        return {
            "accuracy": (weights * right).sum() / count,
            "margin": (weights * difference).sum() / count,
        }


def smooth_labels(probability: Tensor, smoothing: float) -> Tensor:
    """p → (1 − ε) p + ε (1 − p): a label is believed to be turned round with probability ε, in [0, ½)."""
    return (1 - smoothing) * probability + smoothing * (1 - probability)


def davidson_loss(
    first: Tensor, second: Tensor, outcome: Tensor, *, log_ties: Tensor, weights: Tensor, count: Tensor | float
) -> Losses:
    """Comparisons with ties as a third answer: P(tie) = ν / (e^{d/2} + e^{−d/2} + ν), d = s_first − s_second.

    Davidson 1970; P(first) = e^{d/2} over the same sum. `outcome` (N,) is P(first wins) as the labeler gave it, or NaN
    for a tie; `log_ties` is log ν, a scalar that is learned with the scores. Given that a pair is no tie its odds are
    e^d, as without ties: d keeps its meaning, which the rule of Rao and Kupper 1967 does not let it (docs/objectives.md
    compares both on people's answers). Accuracy and margin are in `order_metrics` of the pairs that are no ties.
    """
    half = (first - second) / 2
    log_sum = torch.logaddexp(torch.logaddexp(half, -half), log_ties.to(half.dtype))
    tied = outcome.isnan()
    chosen = torch.where(tied, torch.ones_like(outcome), outcome)
    value = torch.where(tied, log_ties.to(half.dtype), chosen * half - (1 - chosen) * half)
    loss = -(weights * (value - log_sum)).sum() / count
    return loss, {"loss/ranking": loss.detach()}


def sign_loss(
    scores: Tensor, positive: Tensor, *, weights: Tensor | None = None, count: Tensor | float, name: str = "sign"
) -> Losses:
    """Σ w · −log σ(s · score) / count with s = +1 where `positive` and −1 elsewhere: it puts the boundary at 0.

    `scores` (N,), `positive` (N,) bool. Of a cost model, positive is unsafe, and twice this, a pair having two labels,
    are the last two terms of Safe RLHF (arXiv:2310.12773), section 3.2. Of a preference model, positive is good
    (unpaired labels, "both bad").
    """
    weights = torch.ones_like(scores) if weights is None else weights
    signs = torch.where(positive, 1.0, -1.0).to(scores.dtype)
    loss = -(weights * F.logsigmoid(signs * scores)).sum() / count
    with torch.no_grad():
        right = ((scores > 0) == positive).float()
        metrics = {f"loss/{name}": loss.detach(), f"accuracy_{name}": (weights * right).sum() / count}
    return loss, metrics


def rating_loss(
    scores: Tensor, ratings: Tensor, *, gain: Tensor | float, bias: Tensor | float, weights: Tensor, count: float
) -> Losses:
    """Σ w · ½ (rating − gain · score − bias)² / count: regression of ratings (N,) on scores (N,).

    Gain and bias are the rater's scale, learned with the scores, so that a score stays in logits where ratings and
    comparisons are learned from together (HelpSteer, arXiv:2311.09528, regresses without them).
    """
    error = ratings - gain * scores - bias
    loss = 0.5 * (weights * error**2).sum() / count
    return loss, {"loss/rating": loss.detach()}


def centring_loss(better: Tensor, worse: Tensor, *, weights: Tensor, count: Tensor | float) -> Losses:
    """Σ w · (s_better + s_worse)² / count: scores of a pair lie about 0 (Eisenstein et al. 2023, arXiv:2312.09244).

    The auxiliary loss of TRL's RewardTrainer, whose weight is `center_rewards_coefficient`.
    """
    loss = (weights * (better + worse) ** 2).sum() / count
    return loss, {"loss/centring": loss.detach()}


def score_regularizer(scores: Tensor, *, weight: float, count: Tensor | float) -> Tensor:
    """`weight` · Σ score² / count: keeps scores finite on separable data. `scores` (N,)."""
    return weight * (scores.float() ** 2).sum() / count
