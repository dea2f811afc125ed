"""The proxy keeps rising while gold turns; more data and a stronger penalty lose less; a second model warns of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.cells import Cells
from accord.claims.contract import Claim, Finding, Part
from accord.claims.decoupling import show
from accord.claims.sqrt_kl import SMOOTHING
from accord.config import Annotate, Ppo, Preference, Sample
from accord.evaluation.statistics import Interval, hierarchical_interval
from accord.reporting.figures import Line, Panel, curves
from accord.run import read_lines
from accord.stages.recipes import GoldFlow

FEW = 250  # comparisons of a preference model that is easily fooled
END = 10  # last iterations that stand for the end of a run
GAP = 0.25  # deviations by which the reward has outrun the watched model when the alarm rings


def fewer(flow: GoldFlow) -> Preference:
    """The helpful preference model on a small part of its data."""
    return flow.helpful().model_copy(update={"out": str(flow.root / "helpful-few"), "max_rows": FEW})


def other_half(flow: GoldFlow) -> tuple[Sample, Annotate, Preference]:
    """A preference model of the same kind on as few comparisons of other prompts: the test half."""
    count = 4 * FEW
    sample = flow.sample("sample-watch", data=f"world:prompts?count={count}&seed={flow.seed + 150}")
    annotate = flow.annotate("annotate-watch", samples=sample.out, criteria=["helpful"], judged=[], slices={}, seed=1)
    data = str(Path(annotate.out) / "comparisons-helpful.jsonl")
    return sample, annotate, fewer(flow).model_copy(update={"out": str(flow.root / "helpful-watch"), "data": data})


def conditions(flow: GoldFlow) -> dict[str, Ppo]:
    """PPO past the gold peak: on few comparisons, on all of them, on few under a stronger penalty."""
    hunted = {"kl_coefficient": 0.02, "schedule": "constant", "steps": 80, "mini_batch_size": 64, "learning_rate": 6e-4}
    watched = {"watch": {"other": flow.snapshot("helpful-watch")}}
    few = {**hunted, **watched, "rewards": {"helpful": flow.snapshot("helpful-few")}}
    return {
        "few": flow.ppo("hunted-few", **few),
        "all": flow.ppo("hunted-all", **{**hunted, **watched}),
        "few, strong penalty": flow.ppo("hunted-few-penalty", **{**few, "kl_coefficient": 0.4}),
    }


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Where gold turns, what the proxy does after it, what is lost by the end, and when the alarm rings."""
    flows = cells.base(seeds)
    cells.run([fewer(flow) for flow in flows])
    halves = [other_half(flow) for flow in flows]
    for kind in range(3):
        cells.run([half[kind] for half in halves])
    cells.run([config for flow in flows for config in conditions(flow).values()])
    names = list(conditions(flows[0]))
    tables = {name: [read_run(Path(conditions(flow)[name].out)) for flow in flows] for name in names}
    peaks = {name: [peak_at(table["gold/helpful"]) for table in tables[name]] for name in names}
    few, peak = tables["few"], peaks["few"]
    lost = {n: [fall(t["gold/helpful"], p) for t, p in zip(tables[n], peaks[n], strict=True)] for n in names}
    parts = [
        Part(
            "few comparisons: proxy from gold's peak to the end",
            over_seeds([rise(t["reward/helpful"], p) for t, p in zip(few, peak, strict=True)]),
            0.0,
            "above",
        ),
        Part("few comparisons: gold lost from its peak to the end", over_seeds(lost["few"]), 0.0, "above"),
        Part("gold lost, few − all comparisons", over_seeds(np.subtract(lost["few"], lost["all"])), 0.0, "above"),
        Part(
            "gold lost, weak − strong penalty",
            over_seeds(np.subtract(lost["few"], lost["few, strong penalty"])),
            0.0,
            "above",
        ),
        Part(
            "iterations from the alarm to gold's peak",
            over_seeds([float(p - alarm_at(t["watch/other/gap"])) for t, p in zip(few, peak, strict=True)]),
            -1.0,
            "above",
        ),
    ]
    notes = [
        f"{name}: KL at gold's peak by seed "
        + ", ".join(f"{t['objective/kl'][p]:.2f}" for t, p in zip(tables[name], peaks[name], strict=True))
        + f"; gold lost {show(over_seeds(lost[name]))}"
        for name in names
    ]
    notes.append(f"the alarm rings where the reward has outrun the watched model by {GAP:g} deviations")
    panels = []
    for metric, title in (("reward/helpful", "preference-model score"), ("gold/helpful", "gold helpfulness")):
        lines = [
            Line(name, i, root_kl(tables[name]), mean_of(tables[name], metric), points=True, joined=False)
            for i, name in enumerate(names)
        ]
        panels.append(Panel(title, "√KL (√nats)", "score", lines))
    return Finding(parts, notes, curves(panels, columns=2, height=3.0))


def read_run(folder: Path) -> dict[str, np.ndarray]:
    """The numbers of a PPO run by iteration."""
    rows = read_lines(folder / "metrics.jsonl")
    names = ("objective/kl", "reward/helpful", "gold/helpful", "watch/other/gap")
    return {name: np.array([row[name] for row in rows]) for name in names}


def peak_at(gold: np.ndarray) -> int:
    """The iteration where the smoothed gold score is highest."""
    window = min(SMOOTHING, len(gold))
    smooth = np.convolve(gold, np.ones(window) / window, mode="valid")
    return int(smooth.argmax()) + window // 2


def rise(series: np.ndarray, peak: int) -> float:
    """Mean of the last iterations less the mean about gold's peak."""
    around = series[max(peak - SMOOTHING // 2, 0) : peak + SMOOTHING // 2 + 1]
    return float(series[-END:].mean() - around.mean())


def fall(series: np.ndarray, peak: int) -> float:
    return -rise(series, peak)


def alarm_at(gap: np.ndarray) -> int:
    """The first iteration at which the smoothed gap is past its bound; the run's length if it never is."""
    window = min(SMOOTHING, len(gap))
    smooth = np.convolve(gap, np.ones(window) / window, mode="valid")
    past = np.flatnonzero(smooth > GAP)
    return int(past[0]) + window - 1 if len(past) else len(gap)


def over_seeds(numbers: Sequence[float] | np.ndarray) -> Interval:
    """Mean over seeds, seeds drawn; one seed has no interval."""
    return hierarchical_interval([np.array([number]) for number in numbers])


def mean_of(tables: Sequence[dict[str, np.ndarray]], metric: str) -> list[float]:
    shortest = min(len(table[metric]) for table in tables)
    return np.mean([table[metric][:shortest] for table in tables], axis=0).tolist()


def root_kl(tables: Sequence[dict[str, np.ndarray]]) -> list[float]:
    return np.sqrt(np.maximum(mean_of(tables, "objective/kl"), 0.0)).tolist()


CLAIM = Claim(
    name="overoptimisation",
    claim="The proxy reward keeps rising while gold turns; more data or a stronger penalty lose less; a preference "
    "model of the other half of the data sounds the alarm before or at the turn.",
    source="Gao et al. 2022; Bai et al. 2022",
    statistic=f"PPO past the gold peak (the highest mean of {SMOOTHING} iterations): change of proxy and gold from "
    f"there to the last {END} iterations, on a preference model of {FEW} comparisons, of all, and of {FEW} with "
    "20 times the penalty; iterations between the alarm and the peak. Bootstrap over seeds. That the peak is chosen on "
    "the same iterations makes gold's loss look a little larger than it is, alike in all conditions.",
    rule="The proxy rises and gold falls after the peak; less is lost with all comparisons and with the stronger "
    "penalty; the alarm rings at most an iteration after the peak: all with their lower bounds.",
    measure=measure,
)
