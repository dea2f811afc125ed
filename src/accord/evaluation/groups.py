"""Whose values: how far the heads of groups or criteria differ, and by what mixture of them a group answers."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from accord.evaluation.statistics import Interval, finite, share_interval

Array = NDArray[np.float64]
RIDGE = 1e-6  # keeps weights finite where answers are separable


def head_differences(margins: Mapping[str, ArrayLike], clusters: Sequence[Hashable]) -> list[dict[str, Any]]:
    """For every two heads: the share of pairs that they order differently, and the correlation of their margins."""
    table = {head: np.asarray(values, dtype=float) for head, values in margins.items()}
    rows = []
    for one, other in combinations(table, 2):
        a, b = table[one], table[other]
        opposed = share_interval(a * b < 0, clusters)
        varies = a.std() > 0 and b.std() > 0
        correlation = float(np.corrcoef(np.concatenate([a, -a]), np.concatenate([b, -b]))[0, 1]) if varies else np.nan
        rows.append({"heads": [one, other], "opposed": opposed.json(), "correlation": finite(correlation)})
    return rows


def value_weights(
    differences: ArrayLike, clusters: Sequence[Hashable], *, resamples: int = 500, seed: int = 0
) -> list[Interval]:
    """Weights w (K,) of the likeliest P(choice) = σ(Σ w_k · d_k), with percentile intervals over clusters.

    `differences` (n, K) are value(chosen) − value(other) by K criteria: w says how much a group's answers follow each,
    in logits per point. Raises ValueError for no answers.
    """
    data = np.asarray(differences, dtype=float)
    if data.ndim != 2 or not len(data):
        raise ValueError(f"weights need answers by criterion, got differences of shape {data.shape}")
    keys: dict[Hashable, int] = {}
    unit = np.array([keys.setdefault(cluster, len(keys)) for cluster in clusters])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(len(keys), size=len(keys)), minlength=len(keys))[unit]
        draws.append(likeliest_weights(data, drawn.astype(float)))
    low, high = np.quantile(np.array(draws), (0.025, 0.975), axis=0)
    found = likeliest_weights(data, np.ones(len(data)))
    return [Interval(float(w), float(a), float(b), len(data)) for w, a, b in zip(found, low, high, strict=True)]


def likeliest_weights(data: Array, weights: Array) -> Array:
    """w (K,) of the likeliest P = σ(Σ w_k · d_k), for rows d of `data` (n, K) that weigh `weights` (n,).

    Newton's method on the concave log-likelihood of a logistic regression without intercept; scikit-learn's takes
    twelve times as long, in every resample.
    """
    w = np.zeros(data.shape[1])
    total = max(float(weights.sum()), 1.0)
    for _ in range(50):
        p = expit(-(data @ w))  # of the other choice
        gradient = data.T @ (weights * p) / total - RIDGE * w
        curvature = (data * (weights * p * (1 - p))[:, None]).T @ data / total + RIDGE * np.eye(len(w))
        step = np.linalg.solve(curvature, gradient)
        w = w + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return w
