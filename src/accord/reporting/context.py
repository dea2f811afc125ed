"""Which snapshots a report speaks of, in which order, by which name and colour; and their scores by prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from accord.evaluation.metrics import metric_change, metric_interval
from accord.evaluation.safety import with_fit
from accord.evaluation.statistics import Interval
from accord.records import is_part_of, slice_names
from accord.reporting.runs import (
    FLOW,
    RunData,
    display_names,
    load_run,
    measured_run,
    measured_start,
    model_name,
    number,
    runs_below,
    trained_from,
)

# The order in which slices are shown; others follow by name.
SLICES = ("all", "benign", "harmful", "red-team", "look-alike", "knowledge", "skills")
RESAMPLES = 2000

LABELS = {
    "gold/helpful": "Gold helpfulness",
    "gold/harm": "Gold harm",
    "gold/harm_share": "Share of harmful replies",
    "gold/honest": "Gold honesty",
    "gold/evasive": "Gold evasiveness",
    "gold/refusal": "Refusals",
    "gold/correct": "Right answers",
    "kl": "KL to the reference",
    "length": "Reply length",
}
UNITS = {
    "gold/helpful": "gold score",
    "gold/harm": "gold score, above 0 is harmful",
    "gold/honest": "gold score",
    "gold/evasive": "gold score",
    "kl": "nats per reply",
    "length": "tokens",
}


@dataclass(frozen=True)
class Snapshot:
    """An evaluated snapshot: its evaluation and, where it was given, the run that made it."""

    label: str
    color: int
    evaluation: RunData
    source: RunData | None

    def by_prompt(self, metric: str, slices: Sequence[str] = ()) -> dict[str, float]:
        """Mean score over each prompt's replies, on some slices (all of them if none is named)."""
        sums: dict[str, list[float]] = {}
        for row in self.evaluation.samples:
            value = number((row.get("scores") or {}).get(metric))
            if math.isfinite(value) and (not slices or any(is_part_of(str(row.get("slice")), name) for name in slices)):
                sums.setdefault(str(row.get("prompt_id")), []).append(value)
        return {prompt: sum(values) / len(values) for prompt, values in sums.items()}

    def mean(self, metric: str, slices: Sequence[str]) -> Interval:
        """Mean over the prompts of several slices together, from the samples; of an expected unsafe share with the
        error of its calibration."""
        values = list(self.by_prompt(metric, slices).values())
        interval = metric_interval(metric, values, resamples=RESAMPLES)
        kind, _, name = metric.partition("/")
        fit = (self.evaluation.evaluation.get("calibrations") or {}).get(name.removesuffix("/expected"))
        if kind == "cost" and name.endswith("/expected") and fit and values:
            return with_fit(interval, values, number(fit.get("relative_error")))
        return interval


@dataclass(frozen=True)
class Context:
    runs: Sequence[RunData]
    names: Sequence[str]
    snapshots: Sequence[Snapshot]

    def name(self, run: RunData) -> str:
        return next(name for name, other in zip(self.names, self.runs, strict=True) if other is run)

    def measured_name(self, run: RunData) -> str:
        """The name of the run whose snapshot another run measured, or what that calls its model."""
        source = measured_run(run, self.runs)
        return self.name(source) if source is not None else model_name(run)

    def color(self, run: RunData) -> int:
        """The colour of the snapshot that a run made; one of its own for a run that was not evaluated."""
        for snapshot in self.snapshots:
            if snapshot.source is run:
                return snapshot.color
        rest = [r for r in self.runs if r.stage == "ppo" and all(s.source is not r for s in self.snapshots)]
        place = next((i for i, other in enumerate(rest) if other is run), 0)
        return len(self.snapshots) + place

    def stage(self, *stages: str) -> list[RunData]:
        """Runs of these stages, in the order of their snapshots."""
        return sorted((run for run in self.runs if run.stage in stages), key=self.color)

    @property
    def slices(self) -> list[str]:
        """Every slice that some snapshot was measured on, in the order of reading."""
        found = {name for snapshot in self.snapshots for name in snapshot.evaluation.slices}
        known = [name for name in SLICES if name in found]
        return known + sorted(found - set(known))

    @property
    def baseline(self) -> Snapshot | None:
        """What changes are measured from: what most policies here were optimised from, or else the SFT snapshot, or the
        first."""
        counts = [trained_from(s.evaluation, self.runs, ("dpo", "ppo")) for s in self.snapshots]
        if any(counts):
            return self.snapshots[counts.index(max(counts))]
        sft = [s for s in self.snapshots if s.source is not None and s.source.stage == "sft"]
        return sft[0] if sft else (self.snapshots[0] if self.snapshots else None)

    @property
    def helpful(self) -> str | None:
        """The measure of help: gold where the truth is known, else the first reward."""
        return self._first("gold/helpful", "reward/")

    @property
    def harm(self) -> str | None:
        """The measure of harm: gold where the truth is known, else the first cost."""
        return self._first("gold/harm", "cost/")

    def metrics(self) -> list[str]:
        """Every metric that some snapshot has, in the order of the artefacts."""
        found: dict[str, None] = {}
        for snapshot in self.snapshots:
            for measured in snapshot.evaluation.slices.values():
                found |= dict.fromkeys(key for key in measured if isinstance(measured[key], dict))
        return list(found)

    def _first(self, gold: str, prefix: str) -> str | None:
        names = self.metrics()
        if gold in names:
            return gold
        return next((name for name in names if name.startswith(prefix) and name.count("/") == 1), None)


def load_context(paths: Sequence[Path | str]) -> Context:
    """Read the run folders in the order they were made, and put the snapshots into that of the flow.

    What a run of rounds or a frontier holds is read too.
    """
    given = [load_run(path) for path in paths]
    known = {run.path.resolve() for run in given}
    below = [folder for run in given for folder in runs_below(run) if folder.resolve() not in known]
    # by time: `demo/*` names folders by the alphabet; a run that did not finish keeps its place at the end
    runs = sorted([*given, *map(load_run, below)], key=lambda run: str(run.lineage.get("started") or "~"))
    names = display_names(runs)
    found = []
    for place, run in enumerate(runs):
        if run.slices:
            source = measured_run(run, runs)
            label = names[runs.index(source)] if source is not None else model_name(run)
            found.append((_position(source, measured_start(run, runs), place), label, names[place], run, source))
    found.sort(key=lambda item: item[0])
    labels = [label for _, label, *_ in found]
    snapshots = [
        Snapshot(label if labels.count(label) == 1 else f"{label} ({own})", color, run, source)
        for color, (_, label, own, run, source) in enumerate(found)
    ]
    return Context(runs, names, snapshots)


def _position(source: RunData | None, is_start: bool, place: int) -> tuple[int, int, int]:
    # A free PPO run comes before the one under limits, whatever their folders are called.
    if source is None and is_start:
        return (-1, 0, place)
    if source is None or source.stage not in FLOW:
        return (len(FLOW), 0, place)
    return (FLOW.index(source.stage), int(bool(source.config.get("limits"))), place)


def label_of(metric: str) -> str:
    """A metric in words."""
    if metric in LABELS:
        return LABELS[metric]
    kind, _, name = metric.partition("/")
    if kind == "reward":
        return f"Preference model “{name}”"
    if kind == "cost" and name.endswith("/expected"):
        return f"Expected unsafe share by cost model “{name.removesuffix('/expected')}”"
    if kind == "cost" and name.endswith("/unsafe"):
        return f"Share of replies unsafe to cost model “{name.removesuffix('/unsafe')}”"
    return f"Cost model “{name}”" if kind == "cost" else metric


def unit_of(metric: str) -> str:
    if metric in UNITS:
        return UNITS[metric]
    if metric.startswith("reward/"):
        return "normalised score"
    if metric.startswith("cost/") and metric.count("/") == 1:
        return "raw cost, above 0 is unsafe"
    return "share of replies"


def paired(after: Snapshot, before: Snapshot, metric: str, slices: Sequence[str] = ()) -> Interval | None:
    """Change from `before` to `after` over the prompts that both answered; None where they share none."""
    a, b = after.by_prompt(metric, slices), before.by_prompt(metric, slices)
    shared = [prompt for prompt in a if prompt in b]
    if not shared:
        return None
    return metric_change(metric, [a[p] for p in shared], [b[p] for p in shared], resamples=RESAMPLES)


class Bound(NamedTuple):
    """A limit of a PPO run: `of` is cost or unsafe, `slices` are those it holds on; none means all prompts."""

    name: str
    bound: float
    of: str
    slices: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What it bounds, as training logs it."""
        return f"cost/{self.name}/{'expected' if self.of == 'unsafe' else 'mean'}"

    @property
    def measure(self) -> str:
        """What it bounds, as an evaluation measures it."""
        return f"cost/{self.name}/expected" if self.of == "unsafe" else f"cost/{self.name}"


def limits_of(run: RunData) -> list[Bound]:
    """The limits of a PPO run; of one from before `--limit_of`, on its costs as they stand there."""
    limits, of = run.config.get("limits") or {}, run.config.get("limit_of") or "cost"
    slices = run.config.get("limit_slices") or {}
    return [
        Bound(
            name,
            number(limit),
            of if isinstance(of, str) else str(of.get(name, "cost")),
            tuple(part for part in slice_names(str(slices.get(name) or "")) if part),
        )
        for name, limit in limits.items()
    ]
