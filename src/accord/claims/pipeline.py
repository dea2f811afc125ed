"""Each stage of the pipeline is preferred to the one before."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED, select
from accord.disk import read_lines
from accord.evaluation.statistics import nested_interval, pair_outcomes
from accord.reporting.figures import Column, Dots, dots

STEPS = (("pretrain", "sft"), ("sft", "ppo"))


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold win rates of SFT over the pretrained model and of PPO over SFT, on the same evaluation prompts."""
    flows = cells.base(seeds)
    cells.run([flow.ppo() for flow in flows])
    cells.run([flow.evaluate(of) for flow in flows for of in ("pretrain", "sft", "ppo")])
    parts, notes = [], []
    for before, after in STEPS:
        outcomes = [outcome(flow.root, before, after) for flow in flows]
        interval = nested_interval(outcomes, "share")
        parts.append(Part(f"win rate of {after} over {before}", interval, 0.5, "above"))
        by_seed = ", ".join(f"{values.mean():.2f}" for values in outcomes)
        notes.append(f"{after} over {before} by seed: {by_seed}")
    column = Column("", "gold win rate", [Dots("gold win rate", 0, [part.interval for part in parts])], level=0.5)
    figure = dots([part.name for part in parts], [column])
    return Finding(parts, notes, figure)


def outcome(root: Path, before: str, after: str) -> np.ndarray:
    """1, ½ or 0 per prompt: the later stage's reply wins, ties or loses by gold helpfulness."""
    a = select(read_lines(root / f"evaluate-{after}" / "samples.jsonl"), "gold/helpful", TRAINED)
    b = select(read_lines(root / f"evaluate-{before}" / "samples.jsonl"), "gold/helpful", TRAINED)
    return pair_outcomes([a[prompt] - b[prompt] for prompt in a if prompt in b])


CLAIM = Claim(
    name="pipeline",
    claim="Pretraining gives fluency, SFT the form of an assistant, the preference model and PPO what people want: "
    "each stage is preferred to the one before.",
    source="Ouyang et al. 2022; Bai et al. 2022",
    statistic="Gold win rate (helpfulness, a tie is ½) of SFT over the pretrained model and of PPO over SFT, one reply "
    "each to the same evaluation prompts; intervals over seeds.",
    rule="Both lower bounds are above 0.5.",
    measure=measure,
)
