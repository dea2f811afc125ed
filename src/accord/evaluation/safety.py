"""σ(cost) as the chance that a reply is unsafe: one temperature from held-out safety labels, and what its error does.

A cost model's sign terms make σ(C) explain the labels that it learned from. On other labels it may be too sure, or too
timid: labels that are wrong at a rate ε hold σ(C) between ε and 1 − ε, and a mean of it between the truth and one half.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from accord.evaluation.calibration import expected_calibration_error, reliability_bins
from accord.evaluation.statistics import Interval

Array = NDArray[np.float64]
LEAST_LABELS = 50  # below, the temperature is its prior
PRIOR = 1.0  # deviation of log temperature before any label is seen
REACH = 5.0  # deviations of the prior that are searched


@dataclass(frozen=True, slots=True)
class SafetyCalibration:
    """σ(C / temperature) is the chance that a reply of cost C is unsafe, by `n` held-out labels.

    `relative_error` is the standard error of log temperature. `flips` is the share of wrong labels that was taken out;
    `ece` (and `ece_before`, at temperature 1) is the mean |share − chance| over 10 bins of equal mass on those labels.
    """

    temperature: float
    relative_error: float
    n: int
    flips: float
    ece: float
    ece_before: float

    def json(self) -> dict[str, Any]:
        """The form of a model's `config.json`; `SafetyCalibration(**plain)` reads it."""
        return asdict(self)


def calibrate_safety(
    costs: ArrayLike, unsafe: ArrayLike, clusters: Sequence[Hashable], *, flips: float = 0.0
) -> SafetyCalibration | None:
    """The temperature T of P(labelled unsafe) = ε + (1 − 2ε)·σ(C / T), one number and no shift: 0 stays ½.

    Guo et al. 2017 (arXiv:1706.04599); ε is `flips`, the known rate of wrong labels (Natarajan et al. 2013). `costs`
    (N,) in logits, `unsafe` (N,) 0 or 1, `clusters` the prompt of each label. A normal prior of deviation 1 on log T
    keeps T above 0 where a head is never wrong, or no more often than its labels are. The error is the larger of two
    estimates, by curvature and by the clusters' scores. None for fewer than 50 labels, labels of one kind, and costs
    whose sign agrees with no more than half of them.
    """
    raw, said = np.asarray(costs, dtype=float), np.asarray(unsafe, dtype=float)
    if not (raw.shape == said.shape == (len(clusters),)) or not np.isin(said, (0.0, 1.0)).all():
        raise ValueError(f"{raw.shape} costs, {said.shape} labels of 0 or 1 and {len(clusters)} clusters do not fit")
    signs = 2 * said - 1
    if len(raw) < LEAST_LABELS or abs(signs.sum()) == len(raw) or np.mean(np.sign(raw) * signs) <= 0:
        return None
    away = signs * raw

    def posterior(log_temperature: float) -> float:
        z = away * math.exp(-log_temperature)
        # log(ε + (1 − 2ε) σ(z)), which no z makes infinite
        chance = np.logaddexp(math.log1p(-flips), (math.log(flips) if flips else -math.inf) - z) - np.logaddexp(0, -z)
        return float(chance.sum()) - log_temperature**2 / (2 * PRIOR**2)

    log_temperature = _highest(posterior, REACH * PRIOR)
    temperature = math.exp(log_temperature)
    before, after = (_calibration_error(raw / t, said, flips) for t in (1.0, temperature))
    error = _standard_error(away, log_temperature, clusters, flips)
    return SafetyCalibration(temperature, error, len(raw), flips, after, before)


def with_fit(interval: Interval, shares: ArrayLike, relative_error: float, level: float = 0.95) -> Interval:
    """The interval of a mean of σ(C / T) at `level`, which is that of `interval`, with the error of T in it.

    `shares` (N,) are σ(C / T) at the fitted T, `interval` is that of their mean. The sides of two intervals, over
    replies at this T and over T at these replies, add up in squares: MOVER (Zou and Donner 2008), for errors that are
    independent, as the replies have no part in the fit. Stays within 0 and 1.
    """
    p = np.asarray(shares, dtype=float)
    with np.errstate(divide="ignore"):
        logits = np.log(p) - np.log1p(-p)
    z = NormalDist().inv_cdf((1 + level) / 2)
    moved = [float(expit(logits * math.exp(side * z * relative_error)).mean()) - interval.mean for side in (-1, 1)]
    low = interval.mean - math.hypot(interval.mean - interval.low, max(0.0, *(-m for m in moved)))
    high = interval.mean + math.hypot(interval.high - interval.mean, max(0.0, *moved))
    return Interval(interval.mean, max(0.0, low), min(1.0, high), interval.n)


def _highest(function: Callable[[float], float], reach: float) -> float:
    """Where a function that may have several peaks is highest within ± reach: the best of a grid, then refined."""
    from scipy import optimize

    grid = np.linspace(-reach, reach, 201)
    best = grid[int(np.argmax([function(x) for x in grid]))]
    step = grid[1] - grid[0]
    found = optimize.minimize_scalar(lambda x: -function(x), bounds=(best - step, best + step), method="bounded")
    return float(found.x)


def _standard_error(away: Array, log_temperature: float, clusters: Sequence[Hashable], flips: float) -> float:
    def scores(x: float) -> Array:
        """d log P(label) / d log T of every label."""
        z = np.clip(away * math.exp(-x), -700.0, 700.0)
        return np.asarray(-(1 - 2 * flips) * expit(-z) * z / (flips * np.exp(-z) + 1 - flips))

    step = 1e-3
    curvature = float((scores(log_temperature - step) - scores(log_temperature + step)).sum()) / (2 * step)
    information = max(curvature, 0.0) + 1 / PRIOR**2
    sums: dict[Hashable, float] = {}
    for cluster, score in zip(clusters, scores(log_temperature), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + float(score)
    spread = sum(score**2 for score in sums.values()) + 1 / PRIOR**2
    return max(1 / math.sqrt(information), math.sqrt(spread) / information)


def _calibration_error(logits: Array, said: Array, flips: float) -> float:
    """ECE of σ(logit) about the truth: what labels show of it is smaller by 1 − 2ε."""
    expected = flips + (1 - 2 * flips) * expit(logits)
    return expected_calibration_error(reliability_bins(expected, said)) / (1 - 2 * flips)
