"""A preference model of the other half of the data warns of over-optimisation before gold turns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.kl_limits import hunted
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.recipes import GoldFlow
from accord.claims.overoptimisation import FEW, fewer, mean_of, root_kl
from accord.claims.sqrt_kl import SMOOTHING, peak_at, read_run, smoothed
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.online.config import Annotate
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference
from accord.stages.sample.config import Sample

GAP = 0.1  # deviations by which the reward has outrun the watched model when the alarm rings
WATCHED = "watch/other/gap"


def other_half(flow: GoldFlow) -> tuple[Sample, Annotate, Preference]:
    """A preference model of the same kind on as few comparisons of other prompts: the test half."""
    sample = flow.sample("sample-watch", data=f"world:prompts?count={4 * FEW}&seed={flow.seed + 150}")
    annotate = flow.annotate("annotate-watch", samples=sample.out, criteria=["helpful"], judged=[], slices={}, seed=1)
    data = str(Path(annotate.out) / "comparisons-helpful.jsonl")
    return sample, annotate, fewer(flow, "helpful-watch", data=data)


def watched(flow: GoldFlow) -> Ppo:
    """PPO past the gold peak on one half, the other half looking on."""
    rewards, watch = {"helpful": flow.snapshot("helpful-few")}, {"other": flow.snapshot("helpful-watch")}
    return hunted(flow, "hunted-watched", rewards=rewards, watch=watch)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Iterations from the alarm to gold's peak, and how far the halves part by the end."""
    flows = cells.base(seeds)
    halves = [other_half(flow) for flow in flows]
    cells.run([fewer(flow) for flow in flows])
    for stage in zip(*halves, strict=True):
        cells.run(list(stage))
    cells.run([watched(flow) for flow in flows])
    runs = [read_run(Path(watched(flow).out), WATCHED) for flow in flows]
    peaks = [peak_at(run["gold/helpful"]) for run in runs]
    alarms = [alarm_at(run[WATCHED]) for run in runs]
    ahead = nested_interval([float(peak - alarm) for peak, alarm in zip(peaks, alarms, strict=True)])
    apart = nested_interval([float(run[WATCHED][-SMOOTHING:].mean()) for run in runs])
    parts = [
        Part("by the end the reward has outrun the other half, deviations", apart, 0.0, "above"),
        Part("iterations from the alarm to gold's peak", ahead, -1.0, "above"),
    ]
    notes = [
        f"seed {seed}: gold's peak at iteration {peak}, alarm at {alarm if alarm < len(run[WATCHED]) else 'none'}"
        for seed, peak, alarm, run in zip(seeds, peaks, alarms, runs, strict=True)
    ]
    lines = [
        Line("preference-model score", 0, root_kl(runs), mean_of(runs, "reward/helpful"), points=True, joined=False),
        Line("gold helpfulness", 1, root_kl(runs), mean_of(runs, "gold/helpful"), points=True, joined=False),
        Line("gap to the other half", 2, root_kl(runs), mean_of(runs, WATCHED), points=True, joined=False),
    ]
    panel = Panel("", "√KL (√nats)", "score; gap in deviations", lines)
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def alarm_at(gap: np.ndarray) -> int:
    """The first iteration at which the smoothed gap is past its bound; the run's length if it never is."""
    past = np.flatnonzero(smoothed(gap) > GAP)
    return int(past[0]) + min(SMOOTHING, len(gap)) - 1 if len(past) else len(gap)


CLAIM = Claim(
    name="two-halves",
    claim="A preference model of the other half of the data parts from the reward, and warns before or at the turn of "
    "gold.",
    source="Bai et al. 2022, section 4.2",
    statistic=f"PPO past the gold peak on a preference model of {FEW} comparisons, watched by one of as many others: "
    "rise of the reward since the first iteration less that of the watched model, each in its deviations then; "
    f"iterations from where the mean of {SMOOTHING} passes {GAP:g} to gold's peak. Intervals over seeds.",
    rule="By the end the gap is above 0, and the alarm rings at most an iteration after the peak: both with their "
    "lower bounds.",
    measure=measure,
)
