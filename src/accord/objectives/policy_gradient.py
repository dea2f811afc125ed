"""Proximal policy optimisation: the clipped surrogate and the clipped value loss."""

import torch
from torch import Tensor

from accord.objectives.masked import clean, masked_mean


def token_weights(mask: Tensor, mean_over: str, *, longest: int) -> Tensor:
    """Weights (B, T) of the tokens in a policy loss Σ w·x / tokens, for the whole mini-batch with this `mask`.

    `tokens`: 1, a mean over tokens: a long reply counts for more (PPO's code). `replies`: tokens / (replies · length),
    a mean over replies of their token means: tokens of a long reply count for less (GRPO). `length`: tokens /
    (replies · longest), sums over replies divided by a constant: no length is favoured (Dr. GRPO, RLOO).
    """
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1).float()
    total, replies = mask.sum(), mask.shape[0]
    weights = {
        "tokens": torch.ones_like(lengths),
        "replies": total / (replies * lengths),
        "length": (total / (replies * longest)).expand_as(lengths),
    }
    return weights[mean_over].expand(mask.shape)


def ppo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    count: Tensor | float,
    weights: Tensor | float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate, Schulman et al. 2017 (arXiv:1707.06347) eq. 7, negated to be minimised.

    All (B, T); `weights` as `token_weights` makes them, `count` the number of valid tokens in the optimizer batch.
    Metrics are means over tokens whatever the weights are.
    """
    logprobs, old_logprobs, advantages = clean(mask, logprobs, old_logprobs, advantages)
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -masked_mean(weights * torch.minimum(unclipped, clipped), mask, count)
    with torch.no_grad():
        metrics = {
            "loss/policy": loss.detach(),
            "policy/clip_fraction": masked_mean((clipped < unclipped).float(), mask, count),
            # k3 of old ‖ new, unbiased because the tokens were sampled from old
            "policy/kl_old_new": masked_mean(torch.expm1(log_ratio) - log_ratio, mask, count),
            "policy/ratio": masked_mean(ratio, mask, count),
        }
    return loss, metrics


def truncated_ratios(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """min(π(a) / μ(a), cap) (B, T) of tokens drawn from μ, where learning starts from π; 0 where nothing counts.

    Weights of the clipped surrogate, whose ratio is to π and not to the μ that drew: the decoupled objective of Hilton
    et al. 2021 (arXiv:2110.00641), truncated as IMPALA's ρ (Espeholt et al. 2018, arXiv:1802.01561) and token by token
    as in TIS (Yao et al. 2025). They have no gradient.
    """
    logprobs, sampler_logprobs = clean(mask, logprobs.detach(), sampler_logprobs)
    return torch.where(mask, (logprobs - sampler_logprobs).exp().clamp(max=cap), torch.zeros_like(logprobs))


def effective_share(weights: Tensor, mask: Tensor) -> Tensor:
    """Kish's effective sample size over the number of tokens, (Σ w)² / (n Σ w²); 1 where all (B, T) are equal."""
    counted = weights * mask
    return counted.sum().square() / (mask.sum() * counted.square().sum()).clamp(min=1e-12)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float, count: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """½ max((V − R)², (clip(V, V_old ± clip) − R)²), the clipped value loss of PPO's reference code.

    All (B, T). `clip` 0 turns clipping off.
    """
    values, old_values, returns = clean(mask, values, old_values, returns)
    squared = (values - returns) ** 2
    if clip > 0:
        near = old_values + (values - old_values).clamp(-clip, clip)
        squared = torch.maximum(squared, (near - returns) ** 2)
    loss = 0.5 * masked_mean(squared, mask, count)
    return loss, {"loss/value": loss.detach()}
