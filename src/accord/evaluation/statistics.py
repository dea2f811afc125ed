"""Intervals by the bootstrap, and the few statistics that claims and reports are made of.

Every resample is a row of weights: how often each value was drawn. A statistic is a function of those
weights, `[resamples, values] -> [resamples]`, so that whole blocks of resamples are one matrix product.
Values that belong together (one object, one seed, one prompt) are drawn together: give `clusters`, one key
per value.

Same seed, same interval, bit for bit. One value, or one cluster, has no interval: its bounds are NaN.

How far to trust them (tests/evaluation/test_statistics.py measures it): with 50 clusters or more a 95 %
interval covers the truth about 95 % of the time. With few clusters every bootstrap interval is too short;
the default method widens for that (Hesterberg 2015) and covers, with normal values, 94 % at 10 clusters, 92
% at 5 and 76 % at 3.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
Method = Literal["expanded", "percentile", "bca"]

_BLOCK = 1_000_000  # weights in memory at once


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence bounds; `n` counts the values (not the clusters) it stands on."""

    mean: float
    low: float
    high: float
    n: int

    def json(self) -> dict[str, float | int | None]:
        """The form of `evaluation.json`: what is not finite is null."""
        return {"mean": finite(self.mean), "low": finite(self.low), "high": finite(self.high), "n": self.n}

    def side_of(self, bound: float) -> Literal["above", "below", "undecided"]:
        """On which side of `bound` the whole interval lies; undecided if it holds the bound or a bound is unknown."""
        return "above" if self.low > bound else "below" if self.high < bound else "undecided"

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above `bound`; never if a bound is unknown."""
        return self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below `bound`; never if a bound is unknown."""
        return self.high < bound


@dataclass(frozen=True, slots=True)
class WinRate:
    """`rate` counts a tie as half a win; `tie_rate` says how many there were."""

    rate: Interval
    tie_rate: float
    wins: int
    ties: int
    losses: int

    def json(self) -> dict[str, float | int | None]:
        return {
            **self.rate.json(),
            "tie_rate": finite(self.tie_rate),
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
        }


def limit_verdict(cost: Interval, limit: float) -> Literal["met", "not met", "not decided"]:
    """Whether an upper limit on an expectation is met, by its interval: the one place where that is said."""
    side = cost.side_of(limit)
    return "met" if side == "below" else "not met" if side == "above" else "not decided"


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return float(value) if math.isfinite(value) else None


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    method: Method = "expanded",
) -> Interval:
    """Interval of `statistic`, a function of weights `[resamples, n] -> [resamples]`, over `n` values.

    `percentile` takes quantiles of the resampled statistic; `expanded` takes them further out, as Student's
    t and the factor sqrt(n / (n - 1)) ask for small samples (Hesterberg 2015, section 4.3; equal for many
    clusters); `bca` corrects for bias and skew (Efron 1987). Raises ValueError for no values or mismatched
    clusters.
    """
    groups = _groups(clusters, n)
    count = int(groups.max()) + 1
    value = float(statistic(np.ones((1, n)))[0])
    if count < 2:
        return Interval(value, math.nan, math.nan, n)
    draws = np.concatenate([statistic(block[:, groups]) for block in _weights(count, resamples, seed, n)])
    if method == "bca":
        tails = _bca_tails(statistic, value, draws, groups, level)
    elif method == "expanded":
        tails = _expanded_tails(count, level)
    else:
        tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = _quantiles(draws, tails)
    return Interval(value, low, high, n)


def mean_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
    *,
    resamples: int = 10_000,
    method: Method = "expanded",
) -> Interval:
    """Bootstrap interval of a mean over values, or over clusters of them (each value weighs the same).

    No values at all give NaN with n = 0; a value that is not finite is a ValueError, since a mean that leaves
    values out is another mean.
    """
    data = _values(values)
    if data.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)

    def mean(weights: Array) -> Array:
        return (weights @ data) / weights.sum(axis=1)

    return bootstrap(mean, data.size, clusters=clusters, resamples=resamples, level=level, seed=seed, method=method)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
    *,
    resamples: int = 10_000,
    method: Method = "expanded",
) -> Interval:
    """Interval of mean(a - b), where a[i] and b[i] belong to one prompt. ValueError if lengths differ."""
    left, right = _pair(a, b)
    return mean_interval(left - right, clusters, seed, level, resamples=resamples, method=method)


def root_of_falling(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, or the end of the interval that is nearest to it; by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def hierarchical_interval(
    groups: Sequence[ArrayLike],
    seed: int = 0,
    level: float = 0.95,
    *,
    crossed: bool = False,
    resamples: int = 10_000,
) -> Interval:
    """Interval of the mean over seeds of each seed's mean: seeds are drawn, and prompts within them.

    `groups[s]` holds seed s's values. With `crossed` all seeds answered the same prompts in the same order,
    and a drawn prompt is drawn for all seeds (the pigeonhole bootstrap, Owen 2007); otherwise every seed
    has its own. Percentile bounds; with fewer than 2 seeds they come from the prompts alone. Give
    differences for a paired test.
    """
    data = [_values(group) for group in groups]
    if not data or any(group.size == 0 for group in data):
        raise ValueError("hierarchical_interval needs at least one value from every seed")
    total = sum(group.size for group in data)
    value = float(np.mean([group.mean() for group in data]))
    rng = np.random.default_rng(seed)
    seeds = len(data)
    if crossed:
        if len({group.size for group in data}) > 1:
            raise ValueError("crossed: every seed needs the same prompts in the same order")
        table = np.stack(data)
        if table.size < 2:
            return Interval(value, math.nan, math.nan, total)
        drawn = [
            np.einsum("bs,sp,bp->b", _counts(rng, len(block), seeds), table, block) / (seeds * table.shape[1])
            for block in _weights(table.shape[1], resamples, seed + 1)
        ]
        means = np.concatenate(drawn)
    else:
        if total < 2:
            return Interval(value, math.nan, math.nan, total)
        # A seed drawn k times needs k independent sets of prompts.
        chosen = rng.integers(0, seeds, size=(resamples, seeds))
        inner = np.empty((resamples, seeds))
        for index, group in enumerate(data):
            where = chosen == index
            inner[where] = _resampled_means(rng, group, int(where.sum()))
        means = inner.mean(axis=1)
    low, high = _quantiles(means, ((1 - level) / 2, (1 + level) / 2))
    return Interval(value, low, high, total)


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share. It has width even at 0 of n, where a bootstrap has none.

    A tie may count as half a success. No trials give NaN; more successes than trials are a ValueError.
    """
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    z = -_normal_quantile((1 - level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n)


def share_interval(
    outcomes: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of a share of yes among yes/no values: Wilson's, or the bootstrap's when they are clustered.

    Where all clusters agree the bootstrap has no width; Wilson's over the number of clusters stands in.
    """
    data = _values(outcomes)
    if not np.isin(data, (0.0, 0.5, 1.0)).all():
        raise ValueError("a share needs outcomes that are 0 or 1 (½ for a tie)")
    if clusters is None or data.size == 0:
        return wilson(float(data.sum()), data.size, level)
    if data.min() == data.max() and data[0] != 0.5:
        distinct = len(set(clusters))
        bounds = wilson(float(data[0]) * distinct, distinct, level)
        return Interval(float(data[0]), bounds.low, bounds.high, data.size)
    return mean_interval(data, clusters, seed, level)


def win_rate(
    a_scores: ArrayLike,
    b_scores: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
    *,
    ties_within: float = 0.0,
) -> WinRate:
    """How often a beats b on the same prompt. Scores that differ by at most `ties_within` tie: half a win."""
    a, b = _pair(a_scores, b_scores)
    outcome = pair_outcomes(a - b, ties_within)
    wins, ties = int((outcome == 1).sum()), int((outcome == 0.5).sum())
    rate = (
        share_interval(outcome, clusters, seed, level) if ties == 0 else mean_interval(outcome, clusters, seed, level)
    )
    return WinRate(rate, ties / outcome.size if outcome.size else math.nan, wins, ties, outcome.size - wins - ties)


def pair_outcomes(margins: ArrayLike, ties_within: float = 0.0) -> Array:
    """1 where the margin is positive, 0 where negative, ½ where it is a tie."""
    data = _values(margins)
    return np.where(np.abs(data) <= ties_within, 0.5, (data > 0).astype(float))


def r_squared(x: ArrayLike, y: ArrayLike) -> float:
    """Share of the variance of y that a straight line in x explains. NaN if x or y does not vary."""
    left, right = _pair(x, y)
    if left.size < 2:
        return math.nan
    return float(_r_squared(left, right)(np.ones((1, left.size)))[0])


def r2_difference_interval(
    x: ArrayLike,
    other: ArrayLike,
    y: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
    *,
    resamples: int = 10_000,
    method: Method = "expanded",
) -> Interval:
    """Interval of R²(y on x) - R²(y on other), by resampling points, or clusters of points such as runs.

    Resamples that leave no variance say nothing and are left out. Points of one training curve depend on each
    other, so their interval is too short: give `clusters` when there are several runs.
    """
    first, outcome = _pair(x, y)
    second, _ = _pair(other, y)
    if first.size < 3:
        raise ValueError(f"R² of a line needs at least 3 points, got {first.size}")
    one, two = _r_squared(first, outcome), _r_squared(second, outcome)

    def difference(weights: Array) -> Array:
        return one(weights) - two(weights)

    return bootstrap(
        difference, first.size, clusters=clusters, resamples=resamples, level=level, seed=seed, method=method
    )


def _r_squared(x: Array, y: Array) -> Statistic:
    # centred before squaring: large offsets would cancel away
    x, y = x - x.mean(), y - y.mean()

    def statistic(weights: Array) -> Array:
        total = weights.sum(axis=1)
        mx, my = weights @ x / total, weights @ y / total
        xx = weights @ (x * x) / total - mx * mx
        yy = weights @ (y * y) / total - my * my
        xy = weights @ (x * y) / total - mx * my
        scale = 1e-12 * max(float((x * x).mean()), 1e-300) * max(float((y * y).mean()), 1e-300)
        known = xx * yy > scale
        return np.where(known, xy * xy / np.where(known, xx * yy, 1.0), np.nan)

    return statistic


def _values(values: ArrayLike) -> Array:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1:
        raise ValueError(f"expected one row of values, got shape {data.shape}")
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise ValueError(f"{bad} of {data.size} values are not finite")
    return data


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    left, right = _values(a), _values(b)
    if left.size != right.size:
        raise ValueError(f"{left.size} values beside {right.size}: they must belong to the same prompts")
    return left, right


def _groups(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    if n < 1:
        raise ValueError("no values to resample")
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} cluster keys for {n} values")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in clusters])


def _counts(rng: np.random.Generator, rows: int, n: int) -> Array:
    """How often each of n things is drawn in n draws with replacement: `[rows, n]`."""
    index = rng.integers(0, n, size=(rows, n))
    index += np.arange(rows)[:, None] * n
    return np.bincount(index.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def _weights(n: int, resamples: int, seed: int, width: int = 0) -> Iterator[Array]:
    """Blocks of weights `[rows, n]`, of so many rows that `width` numbers a row still fit."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(n, width))
    for start in range(0, resamples, rows):
        yield _counts(rng, min(rows, resamples - start), n)


def _resampled_means(rng: np.random.Generator, group: Array, rows: int) -> Array:
    block = max(1, _BLOCK // group.size)
    parts = [
        group[rng.integers(0, group.size, size=(min(block, rows - start), group.size))].mean(axis=1)
        for start in range(0, rows, block)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _quantiles(draws: Array, tails: tuple[float, float]) -> tuple[float, float]:
    known = draws[np.isfinite(draws)]
    if known.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(known, tails)
    return float(low), float(high)


def _expanded_tails(count: int, level: float) -> tuple[float, float]:
    from scipy import special

    t = -float(special.stdtrit(count - 1, (1 - level) / 2))
    tail = float(special.ndtr(-t * math.sqrt(count / (count - 1))))
    return tail, 1 - tail


def _bca_tails(
    statistic: Statistic, value: float, draws: Array, groups: NDArray[Any], level: float
) -> tuple[float, float]:
    from scipy import special

    known = draws[np.isfinite(draws)]
    below = ((known < value).sum() + 0.5 * (known == value).sum()) / max(known.size, 1)
    if not 0 < below < 1:
        return (1 - level) / 2, (1 + level) / 2
    bias = special.ndtri(below)
    count = int(groups.max()) + 1
    rows = max(1, _BLOCK // groups.size)
    left = []
    for start in range(0, count, rows):
        out = np.arange(start, min(start + rows, count))
        left.append(statistic((groups[None, :] != out[:, None]).astype(float)))
    jackknife = np.concatenate(left)
    away = jackknife.mean() - jackknife
    spread = float((away**2).sum())
    skew = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    tails = []
    for side in ((1 - level) / 2, (1 + level) / 2):
        z = bias + special.ndtri(side)
        tails.append(float(special.ndtr(bias + z / (1 - skew * z))))
    return tails[0], tails[1]


def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
