"""Kullback–Leibler divergence of the policy to the reference: exact, estimated, and its controller.

All are KL(policy ‖ reference), the direction in which the tokens were sampled, in nats.
"""

import math

import torch
from torch import Tensor


def exact_kl(policy_logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(policy ‖ reference) over the full vocabulary: (..., V) and (..., V) to (...)."""
    policy = torch.log_softmax(policy_logits.float(), dim=-1)
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    return (policy.exp() * (policy - reference)).sum(-1)


def k1(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log π − log π_ref of sampled tokens: unbiased, may be negative (Schulman, "Approximating KL")."""
    return policy_logprobs - reference_logprobs


def k2(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """½ (log π − log π_ref)²: biased, low variance; its gradient is that of the KL, on policy."""
    return 0.5 * (policy_logprobs - reference_logprobs) ** 2


def k3(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """π_ref/π − 1 − log(π_ref/π): unbiased and never negative."""
    log_ratio = reference_logprobs - policy_logprobs
    return torch.expm1(log_ratio) - log_ratio


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
