"""People beside a model: how often each says what they find, given the model's scores."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluation.statistics import Interval, root_of_falling

Array = NDArray[np.float64]


def reliability_interval(margins: Sequence[float], level: float = 0.95) -> Interval:
    """How often a labeler says what they find, with the interval of the likelihood ratio.

    `margins` are s_chosen − s_other in logits of what they chose. P(choice) = r σ(d) + (1 − r) σ(−d) (Crowd-BT, Chen
    et al. 2013); the log-likelihood is concave in r, which lies in [0, 1] (½ says nothing; below it, the opposite).
    The interval is all r whose doubled loss of log-likelihood stays below the χ² quantile. No margins give NaN.
    """
    if not len(margins):
        return Interval(math.nan, math.nan, math.nan, 0)
    from scipy import optimize, special, stats

    agree = special.expit(np.asarray(margins, dtype=float))

    def likelihood(r: float) -> float:
        return float(np.log(np.maximum(r * agree + (1 - r) * (1 - agree), 1e-300)).sum())

    best = max((0.0, likeliest_reliability(margins), 1.0), key=likelihood)
    bound = likelihood(best) - stats.chi2.ppf(level, 1) / 2

    def edge(end: float) -> float:
        if likelihood(end) >= bound:
            return end
        return float(optimize.brentq(lambda r: likelihood(r) - bound, best, end))

    return Interval(best, edge(0.0), edge(1.0), len(margins))


def likeliest_reliability(margins: ArrayLike) -> float:
    """r inside (0, 1) that maximises Σ log(r σ(d) + (1 − r) σ(−d)) over the margins d of what somebody chose."""
    lean = np.tanh(np.asarray(margins, dtype=float) / 2)  # σ(d) − σ(−d); the derivative below falls in r
    return root_of_falling(lambda r: float((lean / (0.5 + (r - 0.5) * lean)).sum()), 1e-6, 1 - 1e-6)
