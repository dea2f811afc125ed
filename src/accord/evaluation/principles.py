"""Which principles replies keep to, what that costs, and which two principles are kept one at the other's expense.

Associations are correlations within prompts: how much a reply keeps to a principle, less the mean of the replies to the
same prompt. So two principles that are both easy on easy prompts are not for that associated.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accord.evaluation.statistics import Interval, mean_interval, share_interval

Array = NDArray[np.float64]
LEVEL = 0.95


def kept(scores: Sequence[float], prompts: Sequence[Hashable], seed: int = 0) -> dict[str, Any]:
    """Share of replies that keep to a principle (score above 0) and their mean score, with intervals over prompts."""
    return {
        "holds": share_interval([float(score > 0) for score in scores], prompts).json(),
        "score": mean_interval(scores, prompts, seed, resamples=2000).json(),
    }


def within(values: Sequence[float], prompts: Sequence[Hashable]) -> Array:
    """Values less the mean of their prompt's."""
    data, numbers = np.asarray(values, dtype=float), _numbers(prompts)
    return np.asarray(data - (np.bincount(numbers, data) / np.bincount(numbers))[numbers])


def association(
    one: Sequence[float], other: Sequence[float], prompts: Sequence[Hashable], level: float = LEVEL
) -> Interval | None:
    """Correlation of two scores within prompts, with its interval; None where one of them does not vary there.

    The interval is Student's t on Fisher's z, its variance from what every prompt adds to the estimate: replies to one
    prompt are no independent pairs.
    """
    x, y = within(one, prompts), within(other, prompts)
    spread = float(np.sqrt((x @ x) * (y @ y)))
    numbers = _numbers(prompts)
    count = int(numbers.max()) + 1 if numbers.size else 0
    if spread < 1e-12 or count < 3:
        return None
    r = float(x @ y) / spread
    left, right = x / np.sqrt(x @ x / x.size), y / np.sqrt(y @ y / y.size)
    adds = np.bincount(numbers, left * right - r * (left**2 + right**2) / 2)
    error = math.sqrt(float(adds @ adds) * count / (count - 1)) / x.size
    if abs(r) > 1 - 1e-9:
        return Interval(r, math.nan, math.nan, x.size)
    from scipy import special

    reach = -float(special.stdtrit(count - 1, (1 - level) / 2)) * error / (1 - r * r)
    return Interval(r, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach), x.size)


def contradictions(scores: Mapping[str, Sequence[float]], prompts: Sequence[Hashable]) -> list[dict[str, Any]]:
    """Every two principles with their association, the most opposed first.

    `contradict` is said where the whole interval lies below 0 at a level that all pairs share (Bonferroni): of
    principles that have nothing to do with each other one run in twenty says it of some pair. `low` and `high` are the
    bounds at 95 % of that pair alone.
    """
    pairs = list(combinations(scores, 2))
    strict = 1 - (1 - LEVEL) / max(1, len(pairs))
    rows = []
    for one, other in pairs:
        found = association(scores[one], scores[other], prompts)
        if found is not None:
            shared = association(scores[one], scores[other], prompts, strict)
            opposed = shared is not None and shared.high < 0
            rows.append({"one": one, "other": other, **found.json(), "contradict": opposed})
    return sorted(rows, key=lambda row: float(row["mean"]))


def _numbers(prompts: Sequence[Hashable]) -> NDArray[np.int64]:
    """Prompts as numbers from 0."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(prompt, len(seen)) for prompt in prompts], dtype=np.int64)
