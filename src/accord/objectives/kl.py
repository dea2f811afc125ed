"""Kullback–Leibler divergence between the policy and the reference: exact, estimated, as a loss, and its controller.

In nats, and KL(policy ‖ reference), the direction in which the tokens were sampled, where nothing else is said. The
KL of a whole reply is the sum over its tokens, by the chain rule, as long as the tokens come from the policy.
"""

import math

import torch
from torch import Tensor

from accord.objectives.masked import masked_mean


def exact_kl(policy_logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(policy ‖ reference) over the full vocabulary: (..., V) and (..., V) to (...)."""
    policy = torch.log_softmax(policy_logits.float(), dim=-1)
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    return (policy.exp() * (policy - reference)).sum(-1)


def exact_forward_kl(policy_logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(reference ‖ policy) over the full vocabulary: (..., V) and (..., V) to (...)."""
    return exact_kl(reference_logits, policy_logits)


def k1(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log π − log π_ref of sampled tokens: unbiased, may be negative (Schulman, "Approximating KL")."""
    return policy_logprobs - reference_logprobs


def k2(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """½ (log π − log π_ref)²: biased, low variance; its gradient is that of KL(policy ‖ reference), on policy."""
    return 0.5 * (policy_logprobs - reference_logprobs) ** 2


def k3(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """π_ref/π − 1 − log(π_ref/π): unbiased and never negative; its gradient is that of KL(reference ‖ policy)."""
    log_ratio = reference_logprobs - policy_logprobs
    return torch.expm1(log_ratio) - log_ratio


# by name: of the log-probs of sampled tokens, and of logits
SAMPLED = {"k1": k1, "k2": k2, "k3": k3}
EXACT = {"exact": exact_kl, "exact-forward": exact_forward_kl}


def kl_loss(
    kl: Tensor, mask: Tensor, *, coefficient: float, count: Tensor | float, weights: Tensor | float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """β · Σ w · kl / count, with the gradient that flows through `kl` (B, T): k2, k3 or an exact KL of each token.

    The gradient is that of the KL at *fixed states*: of Σ_t E_{s_t}[KL_t] with the prefixes s_t as they were sampled.
    The KL of whole replies also changes because prefixes become more or less likely; that term is in the gradient of k1
    in the reward and not in this one. k1 must not come here: its expected gradient, E[∇ log π], is 0. `weights` (B, T)
    are those of the policy loss.
    """
    loss = coefficient * masked_mean(weights * kl, mask, count)
    return loss, {"loss/kl": loss.detach()}


def annealed(coefficient: float, ratio: float, step: int, steps: int) -> float:
    """β of iteration `step` (from 0) of `steps`, from `coefficient` to `ratio` times it in equal ratios."""
    return coefficient * ratio ** (step / max(steps - 1, 1))


def adapt_kl_coefficient(coefficient: float, kl: float, *, target: float, horizon: float, samples: int) -> float:
    """The proportional controller of Ziegler et al. 2019 (arXiv:1909.08593) section 2.2.

    `kl` and `target` are nats per *sequence*; `samples` counts the sequences seen since the last call. The
    relative error is clipped to ±0.2.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * samples / horizon)


def sqrt_kl(kl: float) -> float:
    """√KL, the axis of Bai et al. 2022 section 4.3; 0 where sampling noise makes an estimate negative."""
    return math.sqrt(max(kl, 0.0))
