"""How strange a text is to a model: relative Mahalanobis distance on its last hidden states.

Ren et al. 2021 (arXiv:2106.09022) and 2023 (arXiv:2209.15558), with one Gaussian for familiar texts: the squared
distance to them less that to a background of every kind, so that directions in which all texts vary say nothing.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluation.statistics import Interval, Statistic, bootstrap

Array = NDArray[np.float64]
SHRINKAGE = (
    1e-3  # share of the mean variance that is added to every direction: fewer texts than directions are no fault
)


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and inverse covariance (d, d)."""

    mean: Array
    precision: Array

    def squared_distance(self, features: Array) -> Array:
        """(n,) squared Mahalanobis distances of features (n, d)."""
        away = features - self.mean
        distances: Array = np.einsum("nd,de,ne->n", away, self.precision, away)
        return distances


def fit_gaussian(features: ArrayLike) -> Gaussian:
    """Maximum likelihood with a little shrinkage; features (n, d), n of at least 2."""
    data = np.asarray(features, dtype=float)
    if data.ndim != 2 or len(data) < 2:
        raise ValueError(f"a Gaussian needs two texts or more, got features of shape {data.shape}")
    covariance = np.cov(data.T, bias=True).reshape(data.shape[1], data.shape[1])
    floor = SHRINKAGE * max(float(np.trace(covariance)) / len(covariance), 1e-12)
    precision = np.linalg.inv(covariance + floor * np.eye(len(covariance)))
    return Gaussian(data.mean(0), np.asarray(precision, dtype=float))


def relative_distance(features: ArrayLike, familiar: Gaussian, background: Gaussian) -> Array:
    """(n,) squared distance to the familiar texts less that to the background; higher is stranger."""
    data = np.asarray(features, dtype=float)
    return familiar.squared_distance(data) - background.squared_distance(data)


def auroc_interval(
    strange: ArrayLike,
    ordinary: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """P(a strange text scores higher than an ordinary one), equal scores one half, with its bootstrap interval.

    Over texts, or over clusters of them (strange ones first); 1/2 says nothing. scikit-learn's `roc_auc_score` takes a
    row of weights at a time, and a bootstrap has thousands.
    """
    above, below = np.asarray(strange, float), np.asarray(ordinary, float)
    statistic = _auroc(above, below)
    return bootstrap(statistic, above.size + below.size, clusters=clusters, resamples=resamples, seed=seed)


def _auroc(above: Array, below: Array) -> Statistic:
    wins = (above[:, None] > below[None, :]) + 0.5 * (above[:, None] == below[None, :])

    def statistic(weights: Array) -> Array:
        first, second = weights[:, : above.size], weights[:, above.size :]
        pairs = first.sum(1) * second.sum(1)
        won = ((first @ wins) * second).sum(1)
        return np.where(pairs > 0, won / np.maximum(pairs, 1e-300), np.nan)

    return statistic
