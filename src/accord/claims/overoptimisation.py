"""The proxy keeps rising while gold turns; more data, a larger model, an ensemble, a stronger penalty lose less."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims import pm_scaling
from accord.claims.kl_limits import WEAK, hunted, run_config
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import GoldFlow
from accord.claims.sqrt_kl import SMOOTHING, peak_at, read_run
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference

FEW = 250  # comparisons of a preference model that is easily fooled
END = 10  # last iterations that stand for the end of a run
LARGER = "small"  # the size above the policy's own at the small scale
MEMBERS = 3
PENALTY = 20  # times the weak one

Runs = dict[str, list[dict[str, np.ndarray]]]


def fewer(flow: GoldFlow, name: str = "helpful-few", **changes: object) -> Preference:
    """A helpful preference model on a few comparisons of the policy's own replies."""
    data = flow.helpful_data()["policy"]
    return flow.helpful().model_copy(update={"out": str(flow.root / name), "data": data, "max_rows": FEW, **changes})


def models(flow: GoldFlow) -> list[Preference]:
    """On few comparisons: one model, one of a larger size, and an ensemble that answers with its least score."""
    return [
        fewer(flow),
        fewer(flow, "helpful-few-larger", model=flow.snapshot(f"sft-{LARGER}")),
        fewer(flow, "helpful-few-ensemble", ensemble=MEMBERS, combine="worst"),
    ]


def conditions(flow: GoldFlow) -> dict[str, Ppo]:
    """PPO past the gold peak, each condition but the first with one thing that should help."""

    def on(name: str, model: str = "helpful-few", beta: float = WEAK) -> Ppo:
        return hunted(flow, f"hunted-{name}", beta, rewards={"helpful": flow.snapshot(model)})

    return {
        "few comparisons": on("few"),
        "all comparisons": run_config(flow, WEAK),
        "larger model": on("larger", model="helpful-few-larger"),
        "ensemble": on("ensemble", model="helpful-few-ensemble"),
        "stronger penalty": on("penalty", beta=PENALTY * WEAK),
    }


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Where gold turns, what the proxy does after it, and what is lost by the end under every condition."""
    flows = cells.base(seeds)
    for stage in (0, 1):
        cells.run([pm_scaling.base(flow, LARGER)[stage] for flow in flows])
    cells.run([model for flow in flows for model in models(flow)])
    cells.run([config for flow in flows for config in conditions(flow).values()])
    names = list(conditions(flows[0]))
    runs: Runs = {name: [read_run(Path(conditions(flow)[name].out)) for flow in flows] for name in names}
    peaks = {name: [peak_at(run["gold/helpful"]) for run in runs[name]] for name in names}
    lost = {n: [-rise(r["gold/helpful"], p) for r, p in zip(runs[n], peaks[n], strict=True)] for n in names}
    few = names[0]
    proxy = [rise(r["reward/helpful"], p) for r, p in zip(runs[few], peaks[few], strict=True)]
    parts = [
        Part(f"{few}: proxy from gold's peak to the end", nested_interval(proxy), 0.0, "above"),
        Part(f"{few}: gold lost from its peak to the end", nested_interval(lost[few]), 0.0, "above"),
    ]
    parts += [
        Part(f"gold lost: {few} − {other}", nested_interval(np.subtract(lost[few], lost[other])), 0.0, "above")
        for other in names[1:]
    ]
    notes = [
        f"{name}: gold lost {show(nested_interval(lost[name]))}; KL at gold's peak by seed "
        + ", ".join(f"{r['objective/kl'][p]:.2f}" for r, p in zip(runs[name], peaks[name], strict=True))
        + "; at the end KL "
        + f"{ends(runs[name], 'objective/kl'):.1f} nats, gold {ends(runs[name], 'gold/helpful'):+.2f}"
        for name in names
    ]
    panels = []
    for metric, title in (("reward/helpful", "preference-model score"), ("gold/helpful", "gold helpfulness")):
        lines = [
            Line(name, i, root_kl(runs[name]), mean_of(runs[name], metric), points=True, joined=False)
            for i, name in enumerate(names)
        ]
        panels.append(Panel(title, "√KL (√nats)", "score", lines))
    return Finding(parts, notes, curves(panels, columns=2, height=3.0))


def rise(series: np.ndarray, peak: int) -> float:
    """Mean of the last iterations less the mean about gold's peak."""
    around = series[max(peak - SMOOTHING // 2, 0) : peak + SMOOTHING // 2 + 1]
    return float(series[-END:].mean() - around.mean())


def ends(runs: Sequence[dict[str, np.ndarray]], metric: str) -> float:
    return float(np.mean([run[metric][-END:].mean() for run in runs]))


def mean_of(runs: Sequence[dict[str, np.ndarray]], metric: str) -> list[float]:
    shortest = min(len(run[metric]) for run in runs)
    return np.mean([run[metric][:shortest] for run in runs], axis=0).tolist()


def root_kl(runs: Sequence[dict[str, np.ndarray]]) -> list[float]:
    return np.sqrt(np.maximum(mean_of(runs, "objective/kl"), 0.0)).tolist()


CLAIM = Claim(
    name="overoptimisation",
    claim="The proxy reward keeps rising while gold turns; more data, a larger preference model, an ensemble or a "
    "stronger penalty lose less.",
    source="Gao et al. 2022; Bai et al. 2022; Coste et al. 2023",
    statistic=f"PPO past the gold peak (the highest mean of {SMOOTHING} iterations): change of proxy and gold from "
    f"there to the last {END} iterations, on a preference model of {FEW} comparisons; and gold's loss with all "
    f"comparisons, with a model of size {LARGER}, with the least score of {MEMBERS} models, with {PENALTY} times the "
    f"penalty ({WEAK:g}). Intervals over seeds. That the peak is chosen on the same iterations makes gold's loss look "
    "a little larger than it is, alike in all conditions.",
    rule="The proxy rises and gold falls after the peak; each of the four loses less: all with their lower bounds.",
    measure=measure,
)
