"""A coefficient that adapts keeps KL near its target."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.recipes import GoldFlow
from accord.disk import read_lines
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.ppo.config import Ppo

TARGET = 1.0  # nats per reply
WITHIN = 0.1
HORIZON = 20  # iterations
STEPS = 200
PROMPTS = 64  # small iterations, so that the coefficient has as many chances as in a long run


def run_config(flow: GoldFlow) -> Ppo:
    """PPO on helpfulness whose β adapts to a target in small iterations."""
    return flow.ppo(
        "adaptive-kl",
        batch_size=PROMPTS,
        steps=STEPS,
        learning_rate=2e-4,
        kl_target=TARGET,
        kl_horizon=HORIZON * PROMPTS * 2,
    )


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Mean KL over the last third against the target."""
    flows = cells.base(seeds)
    cells.run([run_config(flow) for flow in flows])
    runs = [read_lines(Path(run_config(flow).out) / "metrics.jsonl") for flow in flows]
    kl = [np.array([row["objective/kl"] for row in rows]) for rows in runs]
    last = [series[-STEPS // 3 :] / TARGET - 1 for series in kl]
    off = nested_interval(last)
    parts = [
        Part("KL over the last third, relative to its target", off, -WITHIN, "above"),
        Part("the same, from the other side", off, WITHIN, "below"),
    ]
    notes = [
        f"seed {seed}: KL {series[-STEPS // 3 :].mean():.2f} nats; β from {rows[0]['kl_coefficient']:.3f} to "
        f"{rows[-1]['kl_coefficient']:.3f}"
        for seed, series, rows in zip(seeds, kl, runs, strict=True)
    ]
    lines = [
        Line(f"seed {seed}", i, list(range(len(series))), series.tolist())
        for i, (seed, series) in enumerate(zip(seeds, kl, strict=True))
    ]
    return Finding(parts, notes, curves([Panel("", "iteration", "KL, nats per reply", lines)], columns=1, height=3.0))


CLAIM = Claim(
    name="adaptive-kl",
    claim="A KL coefficient that adapts keeps KL near its target.",
    source="Ziegler et al. 2019, section 2.2",
    statistic=f"PPO of {STEPS} iterations of {2 * PROMPTS} replies with a target of {TARGET:g} nat per reply and a "
    f"horizon of {HORIZON} iterations: mean KL over the last third, relative to the target, less 1; "
    "interval over seeds.",
    rule=f"The whole interval lies within ±{WITHIN:g}.",
    measure=measure,
)
