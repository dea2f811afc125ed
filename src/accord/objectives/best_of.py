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


def expected_best(scores: Tensor, values: Tensor, n: int) -> Tensor:
    """E[value of the best of n by score], without bias from N ≥ n draws: (..., N), (..., N) to (...).

    The mean over all subsets of n draws: the i-th lowest score is the best of C(i − 1, n − 1) of C(N, n) subsets
    (Nakano et al. 2021, arXiv:2112.09332). `values` is what is measured, the score itself or another one;
    of equal scores each is equally often the first.
    """
    total = scores.shape[-1]
    if n > total:
        raise ValueError(f"the best of {n} cannot be told from {total} draws")
    places = torch.arange(1, total + 1, dtype=torch.float64)
    # log C(i − 1, n − 1), −∞ where i < n
    logs = torch.lgamma(places) - torch.lgamma((places - n + 1).clamp(min=1e-9)) - math.lgamma(n)
    logs = torch.where(places >= n, logs, torch.full_like(logs, -math.inf))
    whole = math.lgamma(total + 1) - math.lgamma(n + 1) - math.lgamma(total - n + 1)
    weights = (logs - whole).exp()
    order = scores.argsort(dim=-1)
    ordered, sorted_scores = values.double().gather(-1, order), scores.gather(-1, order)
    return (weights * _mean_over_ties(ordered, sorted_scores)).sum(-1)


def _mean_over_ties(values: Tensor, scores: Tensor) -> Tensor:
    """Each value replaced by the mean over the values whose (sorted) score is the same."""
    same = (scores.unsqueeze(-1) == scores.unsqueeze(-2)).double()
    return (same * values.unsqueeze(-2)).sum(-1) / same.sum(-1)


def acceptance(scores: Tensor, *, beta: float, highest: Tensor | float) -> Tensor:
    """exp((score − highest) / β), the chance to keep a draw: what is kept follows π · exp(score / β) / Z.

    Rejection sampling from the optimum of reward less β · KL (Liu et al. 2023, arXiv:2309.06657). Exact if
    `highest` is at least every score; with the highest of the draws it is the paper's approximation.
    """
    return ((scores - highest) / beta).exp().clamp(max=1.0)
