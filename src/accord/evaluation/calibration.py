"""Whether a probability means what it says: reliability bins, ECE, Brier, slope and temperature.

For a preference model the probability is P(chosen > rejected) = σ(score difference). Its sign is arbitrary,
so every comparison is read from the side that the model prefers: confidence σ(|margin|) in [½, 1], outcome
1 if the labeler agreed. Definitions follow Kadavath et al. 2022 (equal mass) and Naeini et al. 2015 (ECE,
equal width).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from accord.evaluation.statistics import (
    Interval,
    Statistic,
    bootstrap,
    finite,
    pair_outcomes,
    share_interval,
    wilson,
)
from accord.records import unit_hash

Array = NDArray[np.float64]
Binning = Literal["mass", "width"]
ELO = 400 / math.log(10)  # Elo points in one logit


@dataclass(frozen=True, slots=True)
class Bin:
    """Mean confidence and accuracy of `n` predictions; `low` and `high` bound the accuracy (Wilson, 95 %)."""

    confidence: float
    accuracy: float
    n: int
    low: float
    high: float

    def json(self) -> dict[str, Any]:
        return {key: finite(getattr(self, key)) for key in ("confidence", "accuracy", "low", "high")} | {"n": self.n}


class Slope(NamedTuple):
    """outcome ~ σ(intercept + slope · logit): 1 is calibrated, below 1 over-confident, above 1 too timid."""

    slope: float
    intercept: float


@dataclass(frozen=True, slots=True)
class PreferenceCalibration:
    """How far a preference model's probabilities can be believed on `n` comparisons (a tie is half right)."""

    n: int
    accuracy: Interval
    tie_rate: float
    ece: float
    ece_width: float
    brier: float
    log_loss: float
    slope: float
    temperature: float
    bins: tuple[Bin, ...]

    def json(self) -> dict[str, Any]:
        """The form of `evaluation.json`."""
        plain = {
            key: finite(getattr(self, key))
            for key in ("tie_rate", "ece", "ece_width", "brier", "log_loss", "slope", "temperature")
        }
        return {
            "n": self.n,
            "accuracy": finite(self.accuracy.mean),
            "accuracy_interval": self.accuracy.json(),
            **plain,
            "bins": [b.json() for b in self.bins],
        }


def reliability_bins(
    confidence: ArrayLike,
    outcome: ArrayLike,
    bins: int = 10,
    binning: Binning = "mass",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Bin]:
    """Predictions grouped by confidence, empty groups left out; at most `bins` of them.

    `mass` cuts at quantiles (equal confidences stay together, so the order of the data is irrelevant),
    `width` cuts `bounds` evenly. Confidences in [0, 1], outcomes 0, 1 or ½; anything else is a ValueError.
    """
    p, y = _checked(confidence, outcome)
    if p.size == 0:
        return []
    edges = mass_edges(p, bins) if binning == "mass" else np.linspace(*bounds, bins + 1)
    index = np.searchsorted(edges[1:-1], p)
    found = []
    for number in range(bins):
        inside = index == number
        n = int(inside.sum())
        if n:
            share = wilson(float(y[inside].sum()), n)
            found.append(Bin(float(p[inside].mean()), share.mean, n, share.low, share.high))
    return found


def mass_edges(values: ArrayLike, bins: int) -> Array:
    """(bins + 1,): the quantiles that part values into bins of equal mass."""
    return np.asarray(np.quantile(_level(values), np.linspace(0, 1, bins + 1)))


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean over predictions of |accuracy - confidence| of their bin; NaN without bins."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / total if total else math.nan


def ece_interval(
    confidence: ArrayLike,
    outcome: ArrayLike,
    edges: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The expected calibration error over bins between `edges`, with an interval of what as many pairs give on average.

    Not an interval of the error at infinitely many pairs: a sum of |gaps| of a calibrated model is above 0 by chance,
    the more the fewer pairs. A resample has that noise twice and lies above the error that was found, so that quantiles
    of resamples may leave it out (and did): the interval lies around it, by the deviation of the resamples (Efron and
    Tibshirani 1993, chapter 13), on its logarithm, since that deviation grows with it.
    """
    p, y = _checked(confidence, outcome)
    gap = _binned_gap(p, y, np.asarray(edges, dtype=float))
    found = bootstrap(gap, p.size, clusters=clusters, resamples=resamples, seed=seed, centred=True)
    if not found.mean > 0:
        return replace(found, low=0.0)
    reach = math.exp(min((found.high - found.mean) / found.mean, 700.0))
    return replace(found, low=found.mean / reach, high=min(found.mean * reach, 1.0))


def brier(confidence: ArrayLike, outcome: ArrayLike) -> float:
    """Mean squared distance of probability and outcome; ¼ for a coin's. Never report it without accuracy."""
    p, y = _checked(confidence, outcome)
    return float(np.mean(squared_errors(p, y))) if p.size else math.nan


def squared_errors(confidence: Array, outcome: Array) -> Array:
    """Squared distances of probability and outcome; of an outcome of ½, the toss of a coin, the mean over its sides."""
    return (confidence - outcome) ** 2 + outcome * (1 - outcome)


def log_loss(logits: ArrayLike, outcome: ArrayLike) -> float:
    """Mean negative log-likelihood in nats of outcomes under σ(logit); finite for any logit."""
    z, y = np.asarray(logits, dtype=float), np.asarray(outcome, dtype=float)
    return float(np.mean(np.logaddexp(0, z) - y * z)) if z.size else math.nan


def reliability_slope(logits: ArrayLike, outcome: ArrayLike, *, intercept: bool = True) -> Slope:
    """Maximum-likelihood logistic fit of outcomes on the model's own logits.

    Data that a threshold separates has no finite slope: ±inf (intercept NaN). Needs both outcomes when an
    intercept is fitted, otherwise NaN.
    """
    z, y = np.asarray(logits, dtype=float), np.asarray(outcome, dtype=float)
    if not intercept:
        if not np.any(z):
            return Slope(math.nan, 0.0)
        pull = np.concatenate([z[y > 0], -z[y < 1]])  # a tie pulls both ways
        if np.all(pull >= 0) or np.all(pull <= 0):
            return Slope(math.inf if pull.sum() >= 0 else -math.inf, 0.0)
    elif z.size < 2 or np.ptp(z) == 0 or y.min() == y.max():
        return Slope(math.nan, math.nan)
    elif (side := _separated(z, y)) != 0:
        return Slope(side * math.inf, math.nan)
    from sklearn.linear_model import LogisticRegression

    # a tie counts half for each outcome; scaled, so that the solver's tolerance means the same for any logits
    scale, both = float(np.abs(z).max()), np.repeat([1, 0], z.size)
    model = LogisticRegression(C=math.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-10)
    model.fit(np.tile(z / scale, 2)[:, None], both, sample_weight=np.concatenate([y, 1 - y]))
    return Slope(float(model.coef_[0, 0] / scale), float(np.ravel(model.intercept_)[0]))


def fit_temperature(logits: ArrayLike, outcome: ArrayLike) -> float:
    """T that makes σ(logit / T) most likely (Guo et al. 2017): 1 / slope through zero.

    0 where the logits are always right (any sharpening helps), inf where they are no better than chance.
    """
    slope = reliability_slope(logits, outcome, intercept=False).slope
    if math.isnan(slope):
        return math.nan
    return 1 / slope if slope > 0 else math.inf


def preference_calibration(
    margins: ArrayLike,
    bins: int = 10,
    clusters: Sequence[Hashable] | None = None,
) -> PreferenceCalibration:
    """Calibration of P(chosen > rejected) = σ(margin), from margins = score(chosen) - score(rejected), in
    logits.

    A margin of 0 is a tie: half right. `clusters` (such as prompt ids) widen the interval of the accuracy.
    """
    data = np.asarray(margins, dtype=float)
    outcome = pair_outcomes(data)
    confidence = expit(np.abs(data))
    mass = reliability_bins(confidence, outcome, bins, "mass")
    width = reliability_bins(confidence, outcome, bins, "width", bounds=(0.5, 1.0))
    return PreferenceCalibration(
        n=data.size,
        accuracy=share_interval(outcome, clusters),
        tie_rate=float(np.mean(outcome == 0.5)) if data.size else math.nan,
        ece=expected_calibration_error(mass),
        ece_width=expected_calibration_error(width),
        brier=brier(confidence, outcome),
        log_loss=log_loss(np.abs(data), outcome),
        slope=reliability_slope(data, np.ones_like(data), intercept=False).slope,
        temperature=fit_temperature(data, np.ones_like(data)),
        bins=tuple(mass),
    )


def calibration_intervals(
    margins: ArrayLike,
    bins: int = 10,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """ECE (both binnings), Brier, negative log-likelihood, slope, Elo per score point, each with its interval.

    Bins are cut once on all pairs and kept in the resamples; what an ECE's interval is about, `ece_interval` says.
    """
    data = np.asarray(margins, dtype=float)
    outcome, confidence = pair_outcomes(data), expit(np.abs(data))
    mass = mass_edges(confidence, bins)
    width = np.linspace(0.5, 1.0, bins + 1)
    losses = np.logaddexp(0, np.abs(data)) - outcome * np.abs(data)
    drawn: dict[str, Any] = {"clusters": clusters, "resamples": resamples, "seed": seed}
    found = {
        "ece": ece_interval(confidence, outcome, mass, **drawn),
        "ece_width": ece_interval(confidence, outcome, width, **drawn),
    }
    statistics = {
        "brier": _weighted_mean(squared_errors(confidence, outcome)),
        "log_loss": _weighted_mean(losses),
        "slope": _slopes(data),
    }
    found |= {name: bootstrap(statistic, data.size, **drawn) for name, statistic in statistics.items()}
    slope = found["slope"]
    found["elo_per_point"] = Interval(ELO * slope.mean, ELO * slope.low, ELO * slope.high, slope.n)
    return found


def refitted(margins: ArrayLike, clusters: Sequence[Hashable]) -> tuple[Array, tuple[float, float]]:
    """Margins divided by a temperature that was fitted on the other half of the clusters, and both temperatures.

    No pair is measured by a temperature that it had a part in. A half without a finite temperature keeps its margins.
    """
    data = np.asarray(margins, dtype=float)
    half = _halves(clusters)
    out, temperatures = data.copy(), []
    for side in (half, ~half):
        fitted = fit_temperature(data[~side], np.ones(int((~side).sum()))) if (~side).any() else math.nan
        usable = fitted if math.isfinite(fitted) and fitted > 0 else 1.0
        out[side] = data[side] / usable
        temperatures.append(usable)
    return out, (temperatures[0], temperatures[1])


class Isotonic(NamedTuple):
    """A non-decreasing map of |margin| to the probability that the verdict is right, linear between its points."""

    margins: tuple[float, ...]
    probabilities: tuple[float, ...]

    def logits(self, margins: ArrayLike) -> Array:
        """Margins as the logits of their probabilities, their signs kept."""
        data = np.asarray(margins, dtype=float)
        share = np.interp(np.abs(data), self.margins, self.probabilities)
        return np.asarray(np.sign(data) * np.log(share / (1 - share)))


def fit_isotonic(margins: ArrayLike) -> Isotonic:
    """The isotonic regression of right and wrong verdicts on |margin| (Zadrozny and Elkan 2002), by scikit-learn.

    It begins at a half, which an undecided verdict is worth. A verdict counts once more on each side before a share is
    taken to be sure (add one half to both counts of a step), so that no probability is 0 or 1.
    """
    from sklearn.isotonic import IsotonicRegression

    data = np.asarray(margins, dtype=float)
    fitted = IsotonicRegression(y_min=0.5, y_max=1.0).fit(np.abs(data), pair_outcomes(data))
    x, y = np.asarray(fitted.X_thresholds_), np.asarray(fitted.y_thresholds_)
    shrunk = (y * data.size + 0.5) / (data.size + 1)
    return Isotonic((0.0, *x.tolist()), (0.5, *np.maximum(shrunk, 0.5).tolist()))


def refitted_isotonic(margins: ArrayLike, clusters: Sequence[Hashable]) -> Array:
    """Margins mapped by an isotonic regression that was fitted on the other half of the clusters, as `refitted`."""
    data = np.asarray(margins, dtype=float)
    half = _halves(clusters)
    out = data.copy()
    for side in (half, ~half):
        if (~side).any():
            out[side] = fit_isotonic(data[~side]).logits(data[side])
    return out


def _halves(clusters: Sequence[Hashable]) -> NDArray[np.bool_]:
    return np.array([unit_hash(f"calibration {cluster}") < 0.5 for cluster in clusters], dtype=bool)


def difference_curve(margins: ArrayLike, bins: int = 10) -> list[dict[str, float | int]]:
    """Accuracy against |score difference| in bins of equal mass, beside σ(|difference|), what it should be."""
    data = np.asarray(margins, dtype=float)
    away = _level(np.abs(data))
    if data.size == 0:
        return []
    index = np.searchsorted(mass_edges(away, bins)[1:-1], away)
    curve: list[dict[str, float | int]] = []
    for number in np.unique(index):
        inside = index == number
        share = wilson(float(pair_outcomes(data[inside]).sum()), int(inside.sum()))
        curve.append(
            {
                "difference": float(away[inside].mean()),
                "expected": float(expit(away[inside]).mean()),
                "accuracy": share.mean,
                "low": share.low,
                "high": share.high,
                "n": int(inside.sum()),
            }
        )
    return curve


def _weighted_mean(values: Array) -> Statistic:
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def _binned_gap(confidence: Array, outcome: Array, edges: Array) -> Statistic:
    """Σ_bins weight · |accuracy − confidence| as a function of resampled weights."""
    index = np.searchsorted(edges[1:-1], confidence)
    member = (index[:, None] == np.arange(len(edges) - 1)[None, :]).astype(float)
    gaps = member * (outcome - confidence)[:, None]
    return lambda weights: np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def _slopes(margins: Array) -> Statistic:
    """The b that maximises Σ w log σ(b · margin), for all resamples at once; ±inf where there is none.

    By Newton's steps, each kept between where the derivative is known to be positive and where negative.
    """
    reach = 1 / max(float(np.abs(margins).max(initial=0.0)), 1e-300)

    def statistic(weights: Array) -> Array:
        above, below = (weights @ side > 0 for side in (margins > 0, margins < 0))
        found = np.where(above, math.inf, np.where(below, -math.inf, math.nan))
        bounded = above & below
        found[bounded] = roots(weights[bounded] * margins)
        return found

    def slope(pulls: Array, wrong: Array) -> Array:
        return np.asarray((pulls * wrong).sum(axis=1))

    def wrong_at(b: Array) -> Array:
        return np.asarray(expit(-b[:, None] * margins))

    def beyond(pulls: Array, side: float) -> Array:
        """As far to one side as the derivative takes to turn; not for ever, where a margin is no number."""
        b = np.full(len(pulls), side * reach)
        for _ in range(60):
            short = side * slope(pulls, wrong_at(b)) > 0
            if not short.any():
                break
            b = np.where(short, 2 * b, b)
        return b

    def roots(pulls: Array) -> Array:
        low, high = beyond(pulls, -1.0), beyond(pulls, 1.0)
        b = (low + high) / 2
        for _ in range(60):  # halving alone takes as many
            wrong = wrong_at(b)
            up, curvature = slope(pulls, wrong), (pulls * margins * wrong * (1 - wrong)).sum(axis=1)
            low, high = np.where(up > 0, b, low), np.where(up > 0, high, b)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = b + up / curvature
            before, b = b, np.where((low < step) & (step < high), step, (low + high) / 2)
            if np.all(np.abs(b - before) <= 1e-12 * np.abs(b)):
                break
        return b

    return statistic


def _separated(z: Array, y: Array) -> int:
    """1 if a threshold puts every 1 above every 0, -1 if below, else 0. A tie (½) counts on both sides."""
    ones, zeros = z[y > 0], z[y < 1]
    if zeros.max() <= ones.min():
        return 1
    return -1 if ones.max() <= zeros.min() else 0


def _level(values: ArrayLike) -> Array:
    """Values to 12 places. Those of right and of wrong verdicts may differ in their last bit, on one machine and not on
    another; a cut between the two would make a bin of right ones and a bin of wrong ones."""
    return np.asarray(np.round(np.asarray(values, dtype=float), 12))


def _checked(confidence: ArrayLike, outcome: ArrayLike) -> tuple[Array, Array]:
    p, y = _level(confidence), np.asarray(outcome, dtype=float)
    if p.shape != y.shape or p.ndim != 1:
        raise ValueError(f"{p.shape} confidences beside {y.shape} outcomes")
    if not (np.all(p >= 0) and np.all(p <= 1)):
        raise ValueError("confidences must lie in [0, 1]")
    if not np.isin(y, (0.0, 0.5, 1.0)).all():
        raise ValueError("outcomes must be 0 or 1 (½ for a tie)")
    return p, y
