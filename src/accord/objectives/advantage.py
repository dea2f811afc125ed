"""From scores to advantages: the signal streams, advantages with critics and without, the combination.

One stream per signal. The reward stream pays for KL, every cost stream is charged with it, so that the
combination below keeps the KL weight at β whatever the multipliers are (design section 4).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from accord.objectives.masked import clean


def token_signals(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_weight: float) -> Tensor:
    """Terminal score on the last valid slot, `kl_weight`·KL on every valid slot.

    `scores` (B,), `kl` and `mask` (B, T); returns (B, T). Use −β for the reward stream and +β for a cost stream.
    Rows without a valid slot carry nothing.
    """
    (kl,) = clean(mask, kl)
    signals = kl_weight * kl
    lengths = mask.sum(dim=1)
    rows = torch.nonzero(lengths > 0).squeeze(1)
    signals[rows, lengths[rows] - 1] += scores[rows]
    return signals


def gae(signals: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, Schulman et al. 2015 (arXiv:1506.02438) eq. 16.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, with V = 0 after the last valid slot (a finished
    reply has no future). All (B, T), valid slots first; returns advantages and returns A + V, 0 where masked.
    """
    signals, values = clean(mask, signals, values)
    advantages = torch.zeros_like(signals)
    running = torch.zeros_like(signals[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(signals.shape[1])):
        delta = signals[:, t] + gamma * following - values[:, t]
        running = delta + gamma * lam * running
        advantages[:, t] = running
        following = values[:, t]
    return advantages, advantages + values


def returns_to_go(signals: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """G_t = Σ_{u ≥ t} γ^(u−t) r_u, without a baseline: REINFORCE++ (Hu et al. 2025, arXiv:2501.03262) whitens it later.

    (B, T) to (B, T), 0 where masked.
    """
    zeros = torch.zeros_like(signals)
    advantages, _ = gae(signals, zeros, mask, gamma=gamma, lam=1.0)
    return torch.where(mask, advantages, zeros)


def reply_returns(signals: Tensor, mask: Tensor) -> Tensor:
    """R_i = Σ_t r_t of every reply, (B, T) to (B,): what the methods that compare whole replies compare."""
    (signals,) = clean(mask, signals)
    return signals.sum(dim=1)


def leave_one_out(returns: Tensor, samples: int) -> Tensor:
    """R_i − mean of the other replies to the same prompt: RLOO (Ahmadian et al. 2024, arXiv:2402.14740).

    `returns` (B,), prompt by prompt, `samples` ≥ 2 replies each. Unbiased: the baseline does not know reply i.
    """
    grouped = returns.view(-1, samples)
    others = (grouped.sum(dim=1, keepdim=True) - grouped) / (samples - 1)
    return (grouped - others).view(-1)


def less_group_mean(returns: Tensor, samples: int) -> Tensor:
    """R_i − mean of all replies to the same prompt: Dr. GRPO (Liu et al. 2025, arXiv:2503.20783), and GRPO's numerator.

    (samples − 1) / samples times `leave_one_out`.
    """
    grouped = returns.view(-1, samples)
    return (grouped - grouped.mean(dim=1, keepdim=True)).view(-1)


def over_group_deviation(advantages: Tensor, samples: int) -> Tensor:
    """A_i / standard deviation of A in its prompt's group: GRPO (Shao et al. 2024, arXiv:2402.03300) section 4.1.2.

    `advantages` (B,), already centred and combined over the signals. A group whose replies are all equal stays at 0.
    """
    grouped = advantages.view(-1, samples)
    return (grouped / (grouped.std(dim=1, keepdim=True, correction=0) + 1e-6)).view(-1)


def combine_advantages(reward: Tensor, costs: Mapping[str, Tensor], multipliers: Mapping[str, Tensor]) -> Tensor:
    """A = (A_r − Σ λ_i A_i) / (1 + Σ λ_i): the Lagrangian's advantage, Safe RLHF (arXiv:2310.12773), appendix B.

    `reward` and every cost (B, T); `multipliers[name]` (B,) is λ for each prompt, 0 outside the limit's slice.
    The division keeps the size of the step, and with the streams of `token_signals` the KL weight, constant.
    """
    total = torch.zeros_like(reward[:, :1])
    combined = reward
    for name, cost in costs.items():
        weight = multipliers[name].unsqueeze(1)
        combined = combined - weight * cost
        total = total + weight
    return combined / (1 + total)
