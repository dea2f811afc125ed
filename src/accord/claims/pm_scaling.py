"""Preference accuracy grows with log size and log data."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.ladder import SIZES, base, parameters_in
from accord.claims.lab.pairs import score, scored
from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import nested_interval, pair_outcomes
from accord.reporting.figures import Line, Panel, curves
from accord.stages.preference.config import Preference
from accord.stages.score.config import Score
from accord.stages.shared import measures

COUNTS = (250, 1000, 4000)
HELD_OUT = 0.3  # share of the openings that no model learns from
TESTED = 4000  # comparisons drawn for the test, of which the held-out openings are used


def model(flow: GoldFlow, size: str, count: int) -> Preference:
    """A preference model of one size from the first `count` comparisons."""
    changes = {
        "out": str(flow.root / f"scaling-{size}-{count}"),
        "model": flow.snapshot(f"sft-{size}"),
        "data": f"world:comparisons?count={count}&seed={flow.seed}",
        "eval_share": HELD_OUT,
    }
    return flow.helpful().model_copy(update=changes)


def scores(flow: GoldFlow) -> Score:
    """All of a seed's models on fresh comparisons."""
    models = {f"{size}-{count}": flow.snapshot(f"scaling-{size}-{count}") for size in SIZES for count in COUNTS}
    return score(flow, "scaling-scores", f"world:comparisons?count={TESTED}&seed={flow.seed + 500}", "helpful", models)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Fit accuracy = a + b ln P + c ln D over the grid."""
    flows = [cells.flow(seed) for seed in seeds]
    for stage in (0, 1):
        cells.run([base(flow, size)[stage] for flow in flows for size in SIZES])
    cells.run([model(flow, size, count) for flow in flows for size in SIZES for count in COUNTS])
    cells.run([scores(flow) for flow in flows])
    tables = [outcomes(flow) for flow in flows]
    parameters = [parameters_in(Path(flows[0].snapshot(f"scaling-{size}-{COUNTS[0]}"))) for size in SIZES]
    grid = [(math.log(p), math.log(d)) for p in parameters for d in COUNTS]
    found = [nested_interval(column) for column in np.array([fit(table, grid) for table in tables]).T]
    parts = [
        Part("b: accuracy per e-fold of parameters", found[1], 0.0, "above"),
        Part("c: accuracy per e-fold of comparisons", found[2], 0.0, "above"),
    ]
    mean = np.mean([table.mean(0) for table in tables], axis=0).reshape(len(SIZES), len(COUNTS))
    notes = [
        f"{size} ({p:,} parameters): " + ", ".join(f"{d} comparisons {a:.3f}" for d, a in zip(COUNTS, row, strict=True))
        for size, p, row in zip(SIZES, parameters, mean, strict=True)
    ]
    notes.append(f"accuracy ≈ {found[0].mean:.3f} + {found[1].mean:.4f} ln P + {found[2].mean:.4f} ln D")
    notes.append("for orientation: Bai et al. 2022 give 0.007 and 0.015 for 13M to 52B parameters and 1k to 44k pairs")
    lines = [
        Line(size, i, [math.log(d) for d in COUNTS], row.tolist(), points=True)
        for i, (size, row) in enumerate(zip(SIZES, mean, strict=True))
    ]
    panel = Panel("", "ln of comparisons", "held-out accuracy", lines)
    return Finding(parts, notes, curves([panel], columns=1, height=3.2))


def outcomes(flow: GoldFlow) -> np.ndarray:
    """(pairs, cells of the grid): 1 where a model is right, on comparisons whose opening nobody learned from."""
    names = [f"{size}-{count}/logit" for size in SIZES for count in COUNTS]
    rows = [
        pair_outcomes([pair.margin(name) for name in names])
        for pair in scored(scores(flow))
        if measures(pair.comparison.prompt, HELD_OUT)
    ]
    return np.array(rows)


def fit(outcome: np.ndarray, grid: Sequence[tuple[float, float]]) -> np.ndarray:
    """Least squares of a + b ln P + c ln D on one seed's accuracies; its mean over seeds is the fit of all of them."""
    design = np.array([[1.0, *point] for point in grid])
    return np.linalg.lstsq(design, outcome.mean(0), rcond=None)[0]


CLAIM = Claim(
    name="pm-scaling",
    claim="Preference accuracy grows with the logarithm of the model's size and of the number of comparisons.",
    source="Bai et al. 2022, equation A.1",
    statistic=f"Least-squares fit Acc = a + b ln P + c ln D over sizes {', '.join(SIZES)} and "
    f"{', '.join(map(str, COUNTS))} comparisons for helpfulness, on comparisons with openings that no model learned "
    "from; intervals over seeds.",
    rule="b and c are above 0 with their whole intervals.",
    measure=measure,
)
