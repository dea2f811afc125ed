"""Alarms warn before gold turns: every alarm of `ppo` against runs that are hacked and runs that are not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.kl_limits import WEAK, hunted
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.recipes import GoldFlow
from accord.claims.overoptimisation import FEW, PENALTY, fewer
from accord.claims.two_halves import other_half
from accord.disk import read_lines
from accord.evaluation.alarms import ERRORS, AlarmSide, AlarmWorth, TrueCurve, alarm_worth, turn_of
from accord.evaluation.statistics import share_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.ppo.config import Ppo

HORIZON = 5  # iterations before the turn from which an alarm is no false one
GOLD = "gold/helpful"
# what rings: its words, its metric, and the side on which it means harm
ALARMS: dict[str, tuple[str, AlarmSide]] = {
    "KL": ("objective/kl", "above"),
    "length": ("completions/mean_length", "above"),
    "entropy": ("watch/entropy", "below"),
    "second model": ("watch/other/gap", "above"),
    "perplexity": ("watch/perplexity", "above"),
    "tail": ("watch/tail", "above"),
    "repetition": ("watch/repetition", "above"),
}


def conditions(flow: GoldFlow) -> dict[str, Ppo]:
    """PPO that is hacked, on few comparisons at a weak price of KL; and at a price at which it is not."""
    watch = {"other": flow.snapshot("helpful-watch")}
    few = {"helpful": flow.snapshot("helpful-few")}
    return {
        "hacked": hunted(flow, "hunted-watched", rewards=few, watch=watch),
        "careful": hunted(flow, "careful-watched", PENALTY * WEAK, watch=watch),
    }


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Lead time and false alarms of every alarm over the runs of both conditions."""
    flows = cells.base(seeds)
    cells.run([fewer(flow) for flow in flows])
    for stage in zip(*(other_half(flow) for flow in flows), strict=True):
        cells.run(list(stage))
    cells.run([config for flow in flows for config in conditions(flow).values()])
    read = [
        read_curve(f"{name}, seed {seed}", Path(config.out))
        for seed, flow in zip(seeds, flows, strict=True)
        for name, config in conditions(flow).items()
    ]
    worth = {name: alarm_worth(read, metric, side, horizon=HORIZON) for name, (metric, side) in ALARMS.items()}
    parts = [
        Part(f"{name}: iterations from the alarm to gold's turn", found.lead, 0.0, "above")
        for name, found in worth.items()
    ]
    return Finding(parts, [*turns(read), *(told(name, found) for name, found in worth.items())], drawn(read))


def read_curve(name: str, folder: Path) -> TrueCurve:
    """A saved run of PPO on the gold world."""
    rows = read_lines(folder / "metrics.jsonl")
    metrics = {metric: np.array([row.get(metric, np.nan) for row in rows]) for metric, _ in ALARMS.values()}
    return TrueCurve(name, np.array([row[GOLD] for row in rows]), metrics)


def turns(read: Sequence[TrueCurve]) -> list[str]:
    """Where gold turns in each run."""
    found = {curve.name: turn_of(curve.gold) for curve in read}
    return [
        f"{name}: gold does not turn" if turn is None else f"{name}: gold turns at iteration {turn + 1}"
        for name, turn in found.items()
    ]


def told(name: str, worth: AlarmWorth) -> str:
    """One alarm in a sentence, with the bound that a user would set."""
    false, warned = share_interval(worth.false_runs), share_interval(worth.warned)
    return (
        f"{name} ({worth.metric} {worth.side} {worth.bound:.3g}): rang while the run was healthy in {false.mean:.2f} "
        f"[{false.low:.2f}, {false.high:.2f}] of {false.n} runs; before or at the turn in {warned.mean:.2f} "
        f"[{warned.low:.2f}, {warned.high:.2f}] of {warned.n}; lead by run "
        + (", ".join(f"{lead:+.0f}" for lead in worth.leads) or "none")
    )


def drawn(read: Sequence[TrueCurve]) -> str:
    """Every metric and gold, a line a condition, the mean over its seeds."""
    names = list(dict.fromkeys(curve.name.partition(",")[0] for curve in read))
    panels = []
    for title, metric in (("gold helpfulness", GOLD), *((name, metric) for name, (metric, _) in ALARMS.items())):
        lines = []
        for color, name in enumerate(names):
            own = [c.gold if metric == GOLD else c.metrics[metric] for c in read if c.name.startswith(f"{name},")]
            shortest = min(map(len, own))
            mean = np.mean([series[:shortest] for series in own], axis=0)
            lines.append(Line(name, color, list(range(1, shortest + 1)), mean.tolist()))
        panels.append(Panel(title, "iteration", "", lines))
    return curves(panels, columns=3, height=2.0)


CLAIM = Claim(
    name="alarms",
    claim="Alarms on KL, length, entropy, a second model, perplexity, the tail of the reward and repetition ring "
    "before the true score turns.",
    source="Bai et al. 2022, section 4.2; Zheng et al. 2023; no tool has published how early they ring",
    statistic=f"PPO on a preference model of {FEW} comparisons at β {WEAK:g}, and on all comparisons at {PENALTY} "
    "times that. Gold turns where the mean of 5 iterations is highest and the mean of the last 10 lies below it by "
    f"more than {ERRORS:g} standard errors. A bound is the most extreme smoothed value in the healthy iterations "
    f"(until {HORIZON} before the turn) of all other runs. Iterations from the first ring to the turn, of runs that "
    "turn; an alarm that never rings counts as one at the end. Intervals over those runs.",
    rule="The lead of every alarm is above 0 with its lower bound. That some fail says which do not warn.",
    measure=measure,
)
