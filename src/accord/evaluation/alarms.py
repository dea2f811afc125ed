"""What alarms on policy optimisation are worth where the truth is known: false alarms, and time to gold's turn.

A run *turns* where the true score, smoothed, is highest and has fallen by the end; until `horizon` iterations before
that it is *healthy*, and a run that does not turn is healthy throughout. Every alarm is measured on runs that had no
part in its bound: the bound for a run is the most extreme value that its metric took in the healthy iterations of all
others, so that no other run would have rung falsely. Alarms of different metrics are then alike in how often they ring
for nothing, and can be compared by how early they ring.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluation.statistics import Interval, nested_interval, share_interval

Array = NDArray[np.float64]
AlarmSide = Literal["above", "below"]
SMOOTHING = 5  # iterations whose mean is looked at
END = 10  # last iterations that stand for a run's end
ERRORS = 3.0  # standard errors by which the true score must have fallen: its peak is the highest of many, by chance too
FEWEST_RUNS = 4  # runs below which a bound says nothing


@dataclass(frozen=True)
class TrueCurve:
    """A run whose true score is known: `gold` (T,) by iteration, and metrics (T,) of the same iterations by name."""

    name: str
    gold: Array
    metrics: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class AlarmWorth:
    """What one alarm is worth. `leads` are by run that turns, in iterations: above 0 it rang before the turn; one that
    never rings has the distance from the run's end to the turn, below 0. `false_runs` are 1 for each run that rang
    while it was healthy. `bound` is that of all runs together, what a user would set."""

    metric: str
    side: AlarmSide
    bound: float
    leads: tuple[float, ...]
    warned: tuple[float, ...]
    false_runs: tuple[float, ...]

    @property
    def lead(self) -> Interval:
        return nested_interval(self.leads) if self.leads else Interval(math.nan, math.nan, math.nan, 0)

    def json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "side": self.side,
            "bound": self.bound,
            "lead": self.lead.json(),
            "warned": share_interval(self.warned).json(),
            "false_runs": share_interval(self.false_runs).json(),
        }


def moving_mean(series: ArrayLike) -> Array:
    """Means of `SMOOTHING` neighbouring iterations, (T,): each of itself and those before it, fewer at the start.

    It looks back alone, as whoever watches a run does.
    """
    values = np.asarray(series, dtype=float)
    return np.array([values[max(0, i - SMOOTHING + 1) : i + 1].mean() for i in range(len(values))])


def turn_of(gold: ArrayLike) -> int | None:
    """The iteration of the highest mean of `SMOOTHING`, its middle; None where the score has not fallen by the end.

    It has fallen where the mean of the last `END` iterations lies below that peak by more than `ERRORS` standard
    errors, of the noise between neighbours.
    """
    values = np.asarray(gold, dtype=float)
    if len(values) < SMOOTHING + END:
        return None
    means = np.convolve(values, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
    peak = int(means.argmax())
    noise = float(np.diff(values).std()) / math.sqrt(2)
    error = noise * math.sqrt(1 / SMOOTHING + 1 / END)
    if peak + SMOOTHING > len(values) - END or means[peak] - values[-END:].mean() <= ERRORS * error:
        return None
    return peak + SMOOTHING // 2


def healthy_until(curve: TrueCurve, horizon: int) -> int:
    """The number of iterations in which an alarm would be for nothing."""
    turn = turn_of(curve.gold)
    return len(curve.gold) if turn is None else max(0, turn - horizon)


def first_ring(series: ArrayLike, side: AlarmSide, bound: float) -> int | None:
    """The first iteration whose smoothed value is past the bound; None where none is, or where no bound is known."""
    smooth = moving_mean(series)
    past = np.flatnonzero(smooth > bound if side == "above" else smooth < bound)
    return int(past[0]) if len(past) else None


def bound_of(curves: Sequence[TrueCurve], metric: str, side: AlarmSide, horizon: int) -> float:
    """The most extreme smoothed value in the healthy iterations of all these runs; NaN where there is none."""
    values = [v for c in curves for v in moving_mean(c.metrics[metric])[: healthy_until(c, horizon)] if np.isfinite(v)]
    if not values:
        return math.nan
    return float(max(values) if side == "above" else min(values))


def alarm_worth(curves: Sequence[TrueCurve], metric: str, side: AlarmSide, *, horizon: int = 5) -> AlarmWorth:
    """What an alarm on one metric is worth, over runs of which each is measured by the bound of the others.

    ValueError for fewer than `FEWEST_RUNS` runs.
    """
    if len(curves) < FEWEST_RUNS:
        raise ValueError(f"an alarm is measured on {FEWEST_RUNS} runs or more, not on {len(curves)}")
    leads: list[float] = []
    warned: list[float] = []
    falsely: list[float] = []
    for i, curve in enumerate(curves):
        bound = bound_of([*curves[:i], *curves[i + 1 :]], metric, side, horizon)
        rang = first_ring(curve.metrics[metric], side, bound)
        falsely.append(float(rang is not None and rang < healthy_until(curve, horizon)))
        turn = turn_of(curve.gold)
        if turn is not None:
            leads.append(float(turn - (len(curve.gold) if rang is None else rang)))
            warned.append(float(rang is not None and rang <= turn))
    whole = bound_of(curves, metric, side, horizon)
    return AlarmWorth(metric, side, whole, tuple(leads), tuple(warned), tuple(falsely))
