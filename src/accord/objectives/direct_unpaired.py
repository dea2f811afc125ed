"""The direct family beyond pairs: single replies labelled good or bad, and rankings of any length.

What a loss needs to know of its whole optimizer batch (the KL estimate of KTO, the shift of BCO, the number `goods`
of good replies, of which `rewards/chosen` is a mean) comes as an argument, so that micro-batches add up to the batch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.objectives.implicit import Reduction, reduce, reward_metrics
from accord.objectives.ranking import plackett_luce_values, worse_of

Losses = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Singles:
    """N labelled replies, all (N,): summed log-probs of policy and reference, tokens, `good` (bool), weights."""

    logprobs: Tensor
    reference: Tensor
    tokens: Tensor
    good: Tensor
    weights: Tensor

    def log_ratios(self, reduction: Reduction) -> Tensor:
        """log π / π_ref (N,), per reply or per token."""
        return reduce(self.logprobs - self.reference, self.tokens, reduction)


@dataclass(frozen=True, slots=True)
class Rankings:
    """N rankings of up to K replies: all (N, K) but `weights` (N,). `ranks` is 1 for the best, 0 where no reply is.

    Equal ranks are a tie. What stands where no reply is has no influence.
    """

    logprobs: Tensor
    reference: Tensor
    tokens: Tensor
    ranks: Tensor
    weights: Tensor

    def log_ratios(self, reduction: Reduction) -> Tensor:
        """log π / π_ref (N, K), per reply or per token; 0 where no reply is."""
        ratios = torch.where(self.ranks > 0, self.logprobs - self.reference, torch.zeros_like(self.logprobs))
        return reduce(ratios, self.tokens, reduction)


def kto(
    singles: Singles,
    *,
    shift: Tensor,
    beta: float = 0.1,
    reduction: Reduction = "sum",
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
    count: Tensor | float,
    goods: Tensor | float,
) -> Losses:
    """λ_D (1 − σ(β (a − z))) for a good reply, λ_U (1 − σ(β (z − a))) for a bad one, a = log π/π_ref.

    Ethayarajh et al. 2024 (arXiv:2402.01306) eq. 7. `shift` is z = max(0, mean a of mismatched prompts and
    replies), a scalar of the *whole* batch without gradient (`kl_estimate`). The paper takes z over a micro-batch
    and TRL over a batch on all ranks; TRL 1.16's loss is equal to this one given its z. λ_D n_D / (λ_U n_U) should
    lie in [1, 3/2] (TRL's documents: [1, 4/3]).
    """
    ratios = singles.log_ratios(reduction)
    signs = torch.where(singles.good, 1.0, -1.0)
    importance = torch.where(singles.good, good_weight, bad_weight)
    values = importance * torch.sigmoid(-signs * beta * (ratios - shift))
    return _finish("kto", values, singles, beta * ratios, count, goods)


def kl_estimate(log_ratios: Tensor, count: Tensor | float) -> Tensor:
    """KTO's z: max(0, Σ log π/π_ref / count) over mismatched prompts and replies (M,), without gradient.

    The maximum is of the whole batch's sum: over ranks, sum first.
    """
    return (log_ratios.detach().sum() / count).clamp(min=0)


def bco(
    singles: Singles,
    *,
    shift: Tensor,
    beta: float = 0.01,
    reduction: Reduction = "sum",
    count: Tensor | float,
    goods: Tensor | float,
) -> Losses:
    """−log σ(β a − δ) for a good reply, −log σ(δ − β a) for a bad one.

    Jung et al. 2024 (arXiv:2404.04656) section 4, without its density-ratio weights for good and bad prompts that
    differ. `shift` is δ (`reward_shift`), half the sum of the mean rewards of good and of bad replies; theirs is a
    moving average over batches, ours is of this whole batch, so that nothing of it needs saving. TRL's bco_pair is
    this with δ = 0, over pairs (a pair is two replies here, so its mean is twice ours).
    """
    ratios = singles.log_ratios(reduction)
    signs = torch.where(singles.good, 1.0, -1.0)
    values = -F.logsigmoid(signs * (beta * ratios - shift))
    return _finish("bco", values, singles, beta * ratios, count, goods)


def reward_shift(rewards: Tensor, good: Tensor) -> Tensor:
    """BCO's δ: the middle of the mean implicit rewards (N,) of good and bad replies; of all, where one is missing."""
    rewards = rewards.detach()
    if bool(good.all()) or not bool(good.any()):
        return rewards.mean()
    return (rewards[good].mean() + rewards[~good].mean()) / 2


def plackett_luce(
    rankings: Rankings, *, beta: float = 0.1, reduction: Reduction = "sum", count: Tensor | float
) -> Losses:
    """Σ_k −log( e^{r_k} / Σ_{j ranked no better than k} e^{r_j} ), r = β log π/π_ref; DPO for rankings.

    Rafailov et al. 2023 (arXiv:2305.18290) appendix A.3; for two replies it is `dpo`. A ranking counts
    once. A tie says nothing about the order of its members: each is compared with what is ranked strictly worse.
    """
    rewards = beta * rankings.log_ratios(reduction)
    present = rankings.ranks > 0
    worse = worse_of(rankings.ranks)
    values = plackett_luce_values(rewards, rankings.ranks)
    loss = (rankings.weights * values).sum() / count
    lowest = torch.where(present, rankings.ranks, rankings.ranks.max()).amin(1, keepdim=True)
    best = _mean_of(rankings.ranks == lowest)
    last = _mean_of(rankings.ranks == rankings.ranks.amax(1, keepdim=True))
    with torch.no_grad():
        difference = rewards.unsqueeze(2) - rewards.unsqueeze(1)
        right = (difference > 0).float() + 0.5 * (difference == 0).float()
        pairs = worse.float().sum((1, 2)).clamp(min=1)
        logprobs = torch.where(present, rankings.logprobs, torch.zeros_like(rankings.logprobs))
        metrics = reward_metrics(
            (best * rewards).sum(1),
            (last * rewards).sum(1),
            (best * logprobs).sum(1),
            (last * logprobs).sum(1),
            rankings.weights,
            count,
        )
        # of every ordered pair, not of best and last alone
        accuracy = (right * worse.float()).sum((1, 2)) / pairs
        metrics["rewards/accuracies"] = (rankings.weights * accuracy).sum() / count
    return loss, {"loss/plackett_luce": loss.detach(), **metrics}


def _mean_of(chosen: Tensor) -> Tensor:
    """Weights (N, K) that average over the chosen replies of each ranking."""
    kept = chosen.float()
    return kept / kept.sum(1, keepdim=True).clamp(min=1)


def _finish(
    name: str, values: Tensor, singles: Singles, rewards: Tensor, count: Tensor | float, goods: Tensor | float
) -> Losses:
    """Weighted mean; and means over good and over bad replies, as TRL logs them for KTO."""
    loss = (singles.weights * values).sum() / count
    with torch.no_grad():
        good = torch.where(singles.good, singles.weights, torch.zeros_like(singles.weights)) / max(float(goods), 1e-9)
        bads = max(float(count) - float(goods), 1e-9)
        bad = torch.where(singles.good, torch.zeros_like(singles.weights), singles.weights) / bads
        metrics = {
            f"loss/{name}": loss.detach(),
            "rewards/chosen": (good * rewards).sum(),
            "rewards/rejected": (bad * rewards).sum(),
            "rewards/margins": ((good - bad) * rewards).sum(),
            "logps/chosen": (good * singles.logprobs).sum(),
            "logps/rejected": (bad * singles.logprobs).sum(),
        }
    return loss, metrics
