"""A gate: bounds that a snapshot has to keep, each decided by the end of an interval over prompts.

What an interval leaves open is refused: a gate is passed by evidence, never by the lack of it. A snapshot passes if it
keeps every bound, so several bounds make a false pass no likelier than one does (Berger 1982, intersection-union
tests), and no level is divided among them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from accord.evaluation.metrics import is_share, metric_change, metric_interval
from accord.evaluation.safety import with_fit
from accord.evaluation.statistics import Interval

Side = Literal["at least", "at most"]
Kept = Literal["met", "not met", "not decided"]
FEWEST = 20  # prompts below which nothing is decided: values that are all alike would have an interval without width
Values = Mapping[str, Sequence[float]]  # by prompt, those of its replies


@dataclass(frozen=True, slots=True)
class GateBound:
    """What is asked of the mean of `metric` over the replies to prompts of `slices` ("all", or names with commas).

    With `against`, the folder of another evaluation, it is asked of the change from there, paired by prompt.
    `confidence` is that of the two-sided interval: at 0.95 a snapshot that lies on the bound passes once in forty.
    """

    name: str
    metric: str
    slices: str
    side: Side
    limit: float
    confidence: float = 0.95
    against: str = ""


@dataclass(frozen=True, slots=True)
class BoundVerdict:
    """What was found of a bound. `needed` prompts would decide it if mean and spread stay; None where none would."""

    bound: GateBound
    kept: Kept
    interval: Interval
    prompts: int
    needed: int | None

    def json(self) -> dict[str, Any]:
        """The form of `gate.json`."""
        found = {"verdict": self.kept, **self.interval.json(), "prompts": self.prompts, "needed": self.needed}
        return asdict(self.bound) | found

    def __str__(self) -> str:
        bound, found = self.bound, self.interval
        what = f"change of {bound.metric}" if bound.against else bound.metric
        sign = "+" if bound.against else ""
        decided = f"; about {self.needed} would decide" if self.needed else ""
        return (
            f"gate {bound.name}: {self.kept}; {what} on {bound.slices} is {found.mean:{sign}.3g} "
            f"[{found.low:{sign}.3g}, {found.high:{sign}.3g}], asked {bound.side} {bound.limit:{sign}g} at "
            f"{bound.confidence:.4g}; {self.prompts} prompts{decided}"
        )


def judge_bound(
    bound: GateBound, ours: Values, theirs: Values | None = None, *, fit_error: float = 0.0
) -> BoundVerdict:
    """Whether a bound is kept, by values of every reply, by prompt, of this snapshot and of the one compared with.

    `fit_error` is the standard error of log T of a calibrated cost model (`with_fit`), where the metric is its share.
    ValueError for values to compare with where the bound names no other evaluation, and the other way round.
    """
    if (theirs is None) == bool(bound.against):
        raise ValueError(f"{bound.name}: values to compare with belong to a bound on a change, and to no other")
    if theirs is not None:
        shared = [prompt for prompt in ours if prompt in theirs]
        after, before = ([sum(side[p]) / len(side[p]) for p in shared] for side in (ours, theirs))
        prompts = len(shared)
        found = metric_change(bound.metric, after, before, level=bound.confidence) if prompts else _nothing()
    else:
        flat = [value for values in ours.values() for value in values]
        clusters = [prompt for prompt, values in ours.items() for _ in values]
        prompts = len(ours)
        found = metric_interval(bound.metric, flat, clusters, level=bound.confidence)
        found = with_fit(found, flat, fit_error, bound.confidence) if fit_error and flat else found
    return bound_verdict(bound, found, prompts)


def bound_verdict(bound: GateBound, found: Interval, prompts: int) -> BoundVerdict:
    """Whether a bound is kept, by the interval of what it bounds and the number of prompts that it stands on."""
    side = found.side_of(bound.limit) if prompts >= FEWEST else "undecided"
    kept: Kept = "not decided"
    if side != "undecided":
        kept = "met" if side == ("above" if bound.side == "at least" else "below") else "not met"
    needed = prompts_to_decide(bound, found, prompts) if kept == "not decided" else None
    return BoundVerdict(bound, kept, found, prompts, needed)


def prompts_to_decide(bound: GateBound, found: Interval, prompts: int) -> int | None:
    """How many prompts would put the bound outside the interval, if mean and spread stay as they are seen.

    The distance from the mean to the end on the bound's side falls with √n; of a share as Wilson's score has it, whose
    end e of n outcomes with mean p fulfils n (p − e)² = z² e (1 − e). None where the mean is on the bound or unknown.
    """
    distance = abs(found.mean - bound.limit)
    if not (distance > 0 and math.isfinite(found.low)):
        return None
    end = found.high if bound.limit > found.mean else found.low
    ratio = (end - found.mean) ** 2 / distance**2
    if is_share(bound.metric) and not bound.against and 0 < end < 1 and 0 < bound.limit < 1:
        ratio *= bound.limit * (1 - bound.limit) / (end * (1 - end))
    return max(FEWEST, prompts + 1, math.ceil(prompts * ratio))


def _nothing() -> Interval:
    return Interval(math.nan, math.nan, math.nan, 0)
