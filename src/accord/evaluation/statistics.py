"""Intervals of means, shares and statistics of several seeds, and the few numbers that reports are made of.

Three kinds of interval, by what was sampled:

- **several seeds** (`nested_interval`): Student's t over the seeds' own values. Seeds are the independent units, and
  what prompts within a seed add is already in how far seeds differ.
- **shares within one run** (`share_interval`, `wilson`): Wilson's score interval, of as many outcomes as the clusters
  are worth.
- **other means and statistics within one run** (`bootstrap`, `mean_interval`): every resample is a row of weights, how
  often each value was drawn. A statistic is a function of those weights, `[resamples, values] -> [resamples]`, so
  that whole blocks of resamples are one matrix product. Same seed, same interval, bit for bit.

Values that belong together (one object, one prompt) are drawn together: give `clusters`, one key per value. One value,
or one cluster, has no interval: its bounds are NaN.

How far to trust them (tests/evaluation/test_coverage.py measures it): docs/claims.md has the table for seeds. Of the
bootstrap a 95 % interval covers a normal truth about 95 % of the time with 50 clusters or more; widened for few of
them (Hesterberg 2015) it covers 94 % at 10, 92 % at 5 and 76 % at 3.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
Clusters = Sequence[Hashable] | None  # of every value what it belongs to, where several belong together
Kind = Literal["mean", "share", "r2"]

_BLOCK = 1_000_000  # weights in memory at once
_ROOT = 1 / 3  # log (0) covers a skewed R² in 92 of 100 draws, 1/2 knows no lower end at 3 seeds


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence bounds; `n` counts the values (not the clusters) it stands on."""

    mean: float
    low: float
    high: float
    n: int

    def json(self) -> dict[str, Any]:
        """The form of `evaluation.json`: what is not finite is null."""
        return {"mean": finite(self.mean), "low": finite(self.low), "high": finite(self.high), "n": self.n}

    def side_of(self, bound: float) -> Literal["above", "below", "undecided"]:
        """On which side of `bound` the whole interval lies; undecided if it holds the bound or a bound is unknown."""
        return "above" if self.low > bound else "below" if self.high < bound else "undecided"


@dataclass(frozen=True, slots=True)
class Nested(Interval):
    """An interval over seeds, with what it was computed from: every seed's value and how many outcomes it stands on."""

    kind: Kind
    values: tuple[float, ...]
    sizes: tuple[int, ...]

    def json(self) -> dict[str, Any]:
        """The form of a claim's NAME.json: the interval, `kind`, `values` and `sizes`."""
        seeds = {"kind": self.kind, "values": [finite(value) for value in self.values], "sizes": list(self.sizes)}
        return {**Interval.json(self), **seeds}


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
    clusters: Clusters = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    centred: bool = False,
) -> Interval:
    """Interval of `statistic`, a function of weights `[resamples, n] -> [resamples]`, over `n` values.

    Quantiles of the resampled statistic, or `centred` on the value where resamples lie to one side of it; further out
    than the level says, as Student's t and sqrt(n / (n - 1)) ask for few values (Hesterberg 2015, section 4.3). scipy's
    `bootstrap` knows neither that nor clusters. Raises ValueError for no values or mismatched clusters.
    """
    groups = _groups(clusters, n)
    count = int(groups.max()) + 1
    value = float(statistic(np.ones((1, n)))[0])
    if count < 2:
        return Interval(value, math.nan, math.nan, n)
    draws = np.concatenate([statistic(block[:, groups]) for block in resample_weights(count, resamples, seed, n)])
    known = draws[np.isfinite(draws)]
    tail = percentile_tail(count, level)
    if centred:
        half = -NormalDist().inv_cdf(tail) * float(known.std())
        return Interval(value, value - half, value + half, n)
    low, high = np.quantile(known, (tail, 1 - tail)) if known.size else (math.nan, math.nan)
    return Interval(value, float(low), float(high), n)


def percentile_tail(count: int, level: float = 0.95) -> float:
    """Which quantile of the resamples of `count` units is the lower bound: Student's t, and sqrt(n / (n - 1))."""
    return NormalDist().cdf(-_student(count, level) * math.sqrt(count / (count - 1)))


def mean_interval(
    values: ArrayLike, clusters: Clusters = None, seed: int = 0, level: float = 0.95, *, resamples: int = 10_000
) -> Interval:
    """Bootstrap interval of a mean over values, or over clusters of them (each value weighs the same).

    No values at all give NaN with n = 0; a value that is not finite is a ValueError, since a mean that leaves
    values out is another mean.
    """
    data = _values(values)
    if data.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)

    groups = _groups(clusters, data.size)
    sums, sizes = np.bincount(groups, data), np.bincount(groups).astype(float)
    found = bootstrap(lambda w: (w @ sums) / (w @ sizes), len(sums), resamples=resamples, level=level, seed=seed)
    return replace(found, n=data.size)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Clusters = None,
    seed: int = 0,
    level: float = 0.95,
    *,
    resamples: int = 10_000,
) -> Interval:
    """Interval of mean(a - b), where a[i] and b[i] belong to one prompt. ValueError if lengths differ."""
    left, right = _pair(a, b)
    return mean_interval(left - right, clusters, seed, level, resamples=resamples)


def paired_shares(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of mean(a - b) where both are outcomes in [0, 1] of the same prompts: of a change of a share.

    The change is how much rose less how much fell. The intervals of these two (`share_interval`) are put together as
    their errors add up (MOVER, Zou and Donner 2008), correlated as two ways of one draw are. So it has width even where
    no prompt changed, as a bootstrap's has not. ValueError if lengths differ or an outcome is no share.
    """
    left, right = _pair(a, b)
    if not all(((side >= 0) & (side <= 1)).all() for side in (left, right)):
        raise ValueError("a share needs outcomes between 0 and 1 (½ for a tie)")
    up, down = (share_interval(np.maximum(change, 0), None, level) for change in (left - right, right - left))
    either = (1 - up.mean) * (1 - down.mean)
    together = math.sqrt(up.mean * down.mean / either) if either > 0 else 1.0  # minus the correlation

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 + other**2 + 2 * together * one * other))

    low = reach(up.mean - up.low, down.high - down.mean)
    high = reach(up.high - up.mean, down.mean - down.low)
    mean = up.mean - down.mean
    return Interval(mean, max(-1.0, mean - low), min(1.0, mean + high), left.size)


def root_of_falling(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, or the end of the interval that is nearest to it; by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def nested_interval(groups: Sequence[ArrayLike] | Array, kind: Kind = "mean", level: float = 0.95) -> Nested:
    """Interval of the mean over seeds of each seed's own number: what every claim rests on.

    `groups[s]` is seed s's number, or the outcomes `[n_s]` that it is the mean of; seeds weigh the same. `kind` names
    the scale on which the interval is symmetric (`interval_of_seeds`). One seed has the interval of its outcomes, which
    speaks of that seed alone, or none if it is a single number. A number that is not finite leaves the mean unknown.
    Raises ValueError for no seeds, a seed without outcomes, or a share outside [0, 1].
    """
    data = [np.atleast_1d(np.asarray(group, dtype=float)) for group in groups]
    if not data or any(group.ndim != 1 or group.size == 0 for group in data):
        raise ValueError("nested_interval needs a number, or a row of outcomes, from every seed")
    if kind == "share" and any(((group < 0) | (group > 1)).any() for group in data):
        raise ValueError("a share needs outcomes between 0 and 1 (½ for a tie)")
    values, sizes = [float(group.mean()) for group in data], [group.size for group in data]
    if len(data) > 1 or sizes[0] == 1 or kind == "r2" or not math.isfinite(values[0]):
        return interval_of_seeds(values, sizes, kind, level)
    within = share_interval(data[0], level=level) if kind == "share" else mean_interval(data[0], level=level)
    return Nested(within.mean, within.low, within.high, within.n, kind, tuple(values), tuple(sizes))


def interval_of_seeds(
    values: Sequence[float], sizes: Sequence[int], kind: Kind = "mean", level: float = 0.95
) -> Nested:
    """The same from the seeds' numbers alone: their mean, and Student's t on the scale of `kind`.

    A mean keeps its scale. A share of `sizes[s]` outcomes goes to its logit, when one success and one failure are added
    to all outcomes; the seeds' spread counts as at least what rounding to whole outcomes hides, 1 / 12 of an outcome
    squared, so that seeds that agree have width. `r2`, a number that ends at 1 (R², a correlation), goes to
    (1 - r2)^-1/3: by simulation the least bent of the scales that cover a skewed R² too. The spread is carried over by
    the slope at the mean (delta method): the mean over seeds is what is asked for, not the mean on the other scale.
    Raises ValueError for a share outside [0, 1], an `r2` outside [-1, 1].
    """
    numbers, counts = np.asarray(values, dtype=float), np.asarray(sizes, dtype=float)
    mean, seeds, total = float(numbers.mean()), len(numbers), int(sum(sizes))
    ends = {"mean": (-math.inf, math.inf), "share": (0.0, 1.0), "r2": (-1.0, 1.0)}[kind]
    if math.isfinite(mean) and not (ends[0] <= numbers.min() and numbers.max() <= ends[1]):
        raise ValueError(f"a {kind} lies in [{ends[0]:g}, {ends[1]:g}], but the seeds have {list(values)}")
    low = high = math.nan
    if seeds > 1 and math.isfinite(mean):
        from scipy import special

        error, t = math.sqrt(float(numbers.var(ddof=1)) / seeds), _student(seeds, level)
        low, high = mean - t * error, mean + t * error
        if kind == "share":
            centre = (mean * total + 1) / (total + 2)
            error = max(error, math.sqrt(float((1 / (12 * counts**2)).sum())) / seeds)
            middle, reach = math.log(centre / (1 - centre)), t * error / (centre * (1 - centre))
            low, high = map(float, special.expit((middle - reach, middle + reach)))
        elif kind == "r2" and mean < 1 - 1e-12:  # at 1 the seeds agree but for rounding
            middle, reach = (1 - mean) ** -_ROOT, t * error * _ROOT * (1 - mean) ** (-_ROOT - 1)
            low = 1 - (middle - reach) ** (-1 / _ROOT) if middle > reach else -1.0
            high = 1 - (middle + reach) ** (-1 / _ROOT)
        low, high = max(min(low, mean), ends[0]), min(max(high, mean), ends[1])
    return Nested(mean, low, high, total, kind, tuple(map(float, values)), tuple(map(int, sizes)))


def seeds_to_decide(interval: Nested, bound: float, level: float = 0.95) -> int | None:
    """How many seeds would put `bound` outside the interval if mean and deviation stay as they are seen.

    On the statistic's own scale, as if seeds were normal: the least n beyond those there are with t · s / sqrt(n) less
    than the distance to the bound. None if the mean is at the bound, or fewer than two seeds show a deviation.
    """
    distance, there = abs(interval.mean - bound), len(interval.values)
    if not distance > 0 or there < 2:
        return None
    deviation = float(np.std(interval.values, ddof=1))
    n = max(there + 1, math.floor((NormalDist().inv_cdf((1 + level) / 2) * deviation / distance) ** 2))
    while _student(n, level) * deviation >= distance * math.sqrt(n):
        n += 1
    return n


def crossed_interval(table: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the mean of a `[seeds, prompts]` table in which every seed answered the same prompts.

    Both were sampled: the variance of the mean is that of two-way random effects without repeats, (MS_seeds +
    MS_prompts - MS_rest) / (seeds · prompts), with Satterthwaite's degrees of freedom. Fewer than two of either give
    NaN bounds; a table that is not rectangular is a ValueError.
    """
    data = np.array(table, dtype=float)
    if data.ndim != 2 or not data.size:
        raise ValueError("crossed: every seed needs the same prompts in the same order")
    mean, (seeds, prompts) = float(data.mean()), data.shape
    if min(seeds, prompts) < 2:
        return Interval(mean, math.nan, math.nan, data.size)
    by_seed, by_prompt = data.mean(1, keepdims=True) - mean, data.mean(0, keepdims=True) - mean
    free = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)])
    rest = float(np.square(data - mean - by_seed - by_prompt).sum())
    squares = np.array([prompts * float(np.square(by_seed).sum()), seeds * float(np.square(by_prompt).sum()), rest])
    squares = squares / free
    variance = float(squares[0] + squares[1] - squares[2])
    spread = float((squares**2 / free).sum())
    degrees = max(variance**2 / spread, 1.0) if spread > 0 else 1.0
    half = _student(degrees + 1, level) * math.sqrt(max(variance, float(squares[2])) / data.size)
    return Interval(mean, mean - half, mean + half, data.size)


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share. It has width even at 0 of n, where a bootstrap has none.

    A tie may count as half a success, and clusters as fewer outcomes than they hold: scipy's takes whole numbers only.
    No trials give NaN; more successes than trials are a ValueError.
    """
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    low, high = _wilson(successes / n, n, NormalDist().inv_cdf((1 + level) / 2))
    return Interval(successes / n, low, high, round(n))


def share_interval(outcomes: ArrayLike, clusters: Clusters = None, level: float = 0.95) -> Interval:
    """Interval of the mean of outcomes in [0, 1] (yes or no, ½ for a tie, a prompt's mean over its replies).

    Wilson's, of as many outcomes as give the variance that is seen among clusters (an outcome is its own if none are
    named), with the quantile of Student's t where clusters hold several. The variance is seen with two whole clusters
    of successes and two of failures added, of mean size, and four are taken off again: so yes/no outcomes have exactly
    Wilson's interval of n, clusters that all agree that of the number of clusters, and ties alone have width.
    Agresti and Coull 1998 for the four; Dean and Pagano 2015 for effective n. No outcomes give NaN and one cluster NaN
    bounds; outcomes outside [0, 1] are a ValueError.
    """
    data = _values(outcomes)
    if data.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if not ((data >= 0) & (data <= 1)).all():
        raise ValueError("a share needs outcomes between 0 and 1 (½ for a tie)")
    groups, share = _groups(clusters, data.size), float(data.mean())
    count = int(groups.max()) + 1
    if count < 2 and data.size > 1:
        return Interval(share, math.nan, math.nan, data.size)
    quantile = NormalDist().inv_cdf((1 + level) / 2) if count == data.size else _student(count, level)
    low, high = _wilson(share, effective_count(data, clusters), quantile)
    return Interval(share, low, high, data.size)


def effective_count(outcomes: ArrayLike, clusters: Clusters = None) -> float:
    """As how many independent outcomes the outcomes in [0, 1] are worth: `share_interval` says how they are counted."""
    data = _values(outcomes)
    groups = _groups(clusters, data.size)
    size = data.size / (int(groups.max()) + 1)
    smooth = (float(data.sum()) + 2 * size) / (data.size + 4 * size)
    apart = np.bincount(groups, data - smooth)
    added = 2 * size**2 * (smooth**2 + (1 - smooth) ** 2)
    variance = (float(apart @ apart) + added) / (data.size + 4 * size) ** 2
    return max(smooth * (1 - smooth) / variance - 4, 1.0)


def influence_interval(share: float, influence: ArrayLike, clusters: Clusters = None, level: float = 0.95) -> Interval:
    """Interval of an estimated share from what every value adds to it (the estimate's influence function, mean 0).

    The variance is that of the clusters' sums; the interval is Student's t of as many clusters as there are, on the
    logit. A share that is not inside (0, 1), or one cluster, leaves the bounds NaN.
    """
    data = _values(influence)
    groups = _groups(clusters, data.size)
    count = int(groups.max()) + 1
    if count < 2 or not 0 < share < 1:
        return Interval(share, math.nan, math.nan, data.size)
    sums = np.bincount(groups, data)
    error = math.sqrt(float(sums @ sums) * count / (count - 1)) / data.size
    middle, reach = math.log(share / (1 - share)), _student(count, level) * error / (share * (1 - share))
    low, high = (1 / (1 + math.exp(-min(max(x, -700), 700))) for x in (middle - reach, middle + reach))
    return Interval(share, low, high, data.size)


def win_rate(
    a_scores: ArrayLike,
    b_scores: ArrayLike,
    clusters: Clusters = None,
    level: float = 0.95,
    *,
    ties_within: float = 0.0,
) -> WinRate:
    """How often a beats b on the same prompt. Scores that differ by at most `ties_within` tie: half a win."""
    a, b = _pair(a_scores, b_scores)
    outcome = pair_outcomes(a - b, ties_within)
    wins, ties = int((outcome == 1).sum()), int((outcome == 0.5).sum())
    rate = share_interval(outcome, clusters, level)
    return WinRate(rate, ties / outcome.size if outcome.size else math.nan, wins, ties, outcome.size - wins - ties)


def pair_outcomes(margins: ArrayLike, ties_within: float = 0.0) -> Array:
    """1 where the margin is positive, 0 where negative, ½ where it is a tie."""
    data = _values(margins)
    return np.where(np.abs(data) <= ties_within, 0.5, (data > 0).astype(float))


def r_squared(x: ArrayLike, y: ArrayLike) -> float:
    """Share of the variance of y that a straight line in x explains. NaN if x or y does not vary."""
    left, right = _pair(x, y)
    if left.size < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return math.nan
    return float(np.corrcoef(left, right)[0, 1] ** 2)


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


def _groups(clusters: Clusters, n: int) -> NDArray[np.int64]:
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


def resample_weights(n: int, resamples: int, seed: int, width: int = 0) -> Iterator[Array]:
    """How often each of n units is drawn, `[rows, n]`: blocks of so many rows that `width` numbers a row still fit."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(n, width))
    for start in range(0, resamples, rows):
        yield _counts(rng, min(rows, resamples - start), n)


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    shift = quantile**2 / n
    centre = (share + shift / 2) / (1 + shift)
    half = quantile / (1 + shift) * math.sqrt(share * (1 - share) / n + shift / (4 * n))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _student(count: float, level: float) -> float:
    """The two-sided quantile of Student's t of `count` values, which leave count - 1 degrees of freedom."""
    from scipy import special

    return -float(special.stdtrit(count - 1, (1 - level) / 2))
