"""Alignment costs capability in small models, less or nothing in larger ones; pretraining gradients lower the price."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accord.claims.kl_limits import WEAK, hunted
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.ladder import SIZES, base, parameters_in, slope
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import GoldFlow
from accord.claims.ptx import mixing
from accord.disk import read_json
from accord.evaluation.statistics import nested_interval
from accord.evaluation.tasks import ACCURACY, LOSS
from accord.reporting.figures import Line, Panel, curves
from accord.stages.evaluate.config import EvaluateTasks
from accord.stages.ppo.config import Ppo
from accord.world.skills import GRADES

DRAWN = 1500  # prompts drawn of each kind, of which the evaluation split is asked
TEXTS = 400  # documents that no model read
ASKED = (*(f"skills-{grade}" for grade in GRADES), "knowledge", "multiple-choice", "true-false")
TEXT = "text"
# stage: the one before it, and what it is called
STAGES = {
    "pretrain": ("", ""),
    "sft": ("pretrain", "SFT less pretraining"),
    "taxed": ("sft", "PPO less SFT"),
    "taxed-ptx": ("sft", "PPO-ptx less SFT"),
}


def trained(flow: GoldFlow, size: str) -> tuple[Ppo, Ppo]:
    """PPO of one size on the flow's preference model, and the same with pretraining text beside."""
    start = flow.snapshot(f"sft-{size}")
    plain = hunted(flow, f"taxed-{size}", model=start)
    return plain, hunted(flow, f"taxed-ptx-{size}", model=start, **mixing(flow))


def battery(flow: GoldFlow, stage: str, size: str) -> EvaluateTasks:
    """What a snapshot knows and can do, with the change from the stage before."""
    before = STAGES[stage][0]
    tasks = {slice: f"world:prompts/{slice}?count={DRAWN}&seed={flow.seed + 1100}" for slice in ASKED}
    tasks[TEXT] = f"world:corpus?count={TEXTS}&seed={flow.seed + 1100}"
    return EvaluateTasks(
        **flow.common(f"battery-{stage}-{size}"),
        model=flow.snapshot(f"{stage}-{size}"),
        tasks=tasks,
        against=str(flow.root / f"battery-{before}-{size}") if before else "",
        max_new_tokens=40,
        max_length=200,
    )


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """The change of accuracy by stage and size, its slope in ln of the parameters, and what pretraining text saves."""
    flows = cells.base(seeds)
    for place in (0, 1):
        cells.run([base(flow, size)[place] for flow in flows for size in SIZES])
    cells.run([config for flow in flows for size in SIZES for config in trained(flow, size)])
    for wave in (("pretrain",), ("sft",), ("taxed", "taxed-ptx")):
        cells.run([battery(flow, stage, size) for flow in flows for size in SIZES for stage in wave])
    told = {
        stage: [[read_changes(battery(flow, stage, size)) for size in SIZES] for flow in flows]
        for stage, (before, _) in STAGES.items()
        if before
    }
    change = {s: np.array([[one["tax"]["mean"] for one in row] for row in rows]) for s, rows in told.items()}
    counts = [parameters_in(Path(flows[0].snapshot(f"sft-{size}"))) for size in SIZES]
    logs = [math.log(count) for count in counts]
    saved = (change["taxed-ptx"] - change["taxed"]).mean(1)
    parts = [
        Part(f"{SIZES[0]}: accuracy, PPO less SFT", nested_interval(change["taxed"][:, 0]), 0.0, "below"),
        Part("accuracy, PPO less SFT, per e-fold of parameters", slope(logs, change["taxed"]), 0.0, "above"),
        Part("accuracy, PPO-ptx less PPO, mean over sizes", nested_interval(saved), 0.0, "above"),
    ]
    notes = [
        f"{size} ({counts[i]:,} parameters), {STAGES[stage][1]}: accuracy "
        f"{show(nested_interval(change[stage][:, i]))}; {by_task([row[i] for row in rows])}"
        for i, size in enumerate(SIZES)
        for stage, rows in told.items()
    ]
    lines = [
        Line(STAGES[stage][1], color, logs, table.mean(0).tolist(), points=True)
        for color, (stage, table) in enumerate(change.items())
    ]
    panel = Panel("", "ln of parameters", "change of accuracy, share of questions", lines, 0.0, "no tax")
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def read_changes(config: EvaluateTasks) -> dict[str, Any]:
    """Changes by task with paired intervals, and their mean, as `accord evaluate tasks` leaves them."""
    changes: dict[str, Any] = read_json(Path(config.out) / "evaluation.json")["changes"]
    return changes


def by_task(found: Sequence[dict[str, Any]]) -> str:
    """The change of every task in words, the mean over seeds."""

    def mean(task: str, metric: str) -> float:
        return float(np.mean([one["tasks"][task][metric]["mean"] for one in found]))

    told = [f"{task} {mean(task, ACCURACY):+.2f}" for task in ASKED]
    return ", ".join([*told, f"loss of text {mean(TEXT, LOSS):+.2f} nats per token"])


CLAIM = Claim(
    name="tax",
    claim="Alignment costs capability in small models, less or nothing in larger ones; mixing in pretraining gradients "
    "lowers it.",
    source="Bai et al. 2022; Ouyang et al. 2022",
    statistic=f"Models of sizes {', '.join(SIZES)} after pretraining, SFT, and PPO at β = {WEAK:g}, twice as long as a "
    "plain run, without and with the likelihood of pretraining text: change of accuracy from the stage before, paired "
    f"by question, the mean over {', '.join(ASKED)}; the loss of unread text beside it. Slopes are by least squares in "
    "ln of the parameters. Intervals over seeds; 8 seeds see an effect of 1.2 deviations between seeds in four of five "
    "tries.",
    rule=f"PPO costs {SIZES[0]} accuracy, it costs larger models less, and pretraining text lowers the cost: each with "
    "its whole interval.",
    measure=measure,
)
