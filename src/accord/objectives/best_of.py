"""Best of n and rejection sampling: policies made of draws from another one and a score, without training.

Both are the strongest simple baselines of policy optimisation: what a score is worth at a KL, before any gradient.
"""

import math

import torch
from torch import Tensor


def best_of_kl_bound(n: int) -> float:
    """log n − (n − 1)/n ≥ KL(best of n ‖ policy), in nats.

    An upper bound, reached as every single reply becomes improbable (Beirami et al. 2024, arXiv:2401.01879): with few
    possible replies the best of n is often a reply that was likely anyway.
    """
    return math.log(n) - (n - 1) / n


def best_of_kl_estimate(logprobs: Tensor, n: int) -> Tensor:
    """Estimate of that KL from the log-probs ε = π(y|x) of drawn best replies, (N,) to (N,); its mean is the estimate.

    Beirami et al. 2024: as if y were the best reply of all and the others had no mass of their own. With
    q = (1 − ε)^n, the chance that n draws miss y: q·(log n + (n − 1) log(1 − ε) − (n − 1)/n) + (1 − q)·log((1 − q)/ε).
    It lies between 0 and the bound; near it for improbable replies, 0 for a certain one.
    """
    log_miss = torch.log1p(-logprobs.double().exp().clamp(max=1 - 1e-12))
    miss = (n * log_miss).exp()
    hit = -torch.expm1(n * log_miss)
    inside = math.log(n) + (n - 1) * log_miss - (n - 1) / n
    return miss * inside + hit * (hit.log() - logprobs.double())


def acceptance(scores: Tensor, *, beta: float, highest: Tensor | float) -> Tensor:
    """exp((score − highest) / β), the chance to keep a draw: what is kept follows π · exp(score / β) / Z.

    Rejection sampling from the optimum of reward less β · KL (Liu et al. 2023, arXiv:2309.06657). Exact if
    `highest` is at least every score; with the highest of the draws it is the paper's approximation.
    """
    return ((scores - highest) / beta).exp().clamp(max=1.0)
