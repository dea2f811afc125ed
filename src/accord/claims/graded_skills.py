"""Skills of graded difficulty tell models of different size apart."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from accord.claims.lab.answers import CERTAIN
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.ladder import SIZES, base, parameters_in, slope
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import GoldFlow
from accord.disk import read_lines
from accord.evaluation.statistics import nested_interval
from accord.records import Turn
from accord.reporting.figures import Line, Panel, curves
from accord.stages.evaluate.config import Evaluate
from accord.world.requests import parse
from accord.world.skills import GRADED, GRADES

ASKED = 3000  # prompts drawn of every grade, of which the evaluation split is asked


def asked(flow: GoldFlow, size: str) -> Evaluate:
    """The most likely replies of a fine-tuned model of one size to skills of every grade."""
    sources = {
        f"skills-{grade}": f"world:prompts/skills-{grade}?count={ASKED}&seed={flow.seed + 400}" for grade in GRADES
    }
    settings = {"data": sources, "temperature": CERTAIN, "reference": "", "rewards": {}, "costs": {}}
    return flow.evaluate(f"sft-{size}", f"graded-{size}", **settings)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Share of right answers by size and grade, every skill weighing the same."""
    flows = [cells.flow(seed) for seed in seeds]
    for stage in (0, 1):
        cells.run([base(flow, size)[stage] for flow in flows for size in SIZES])
    cells.run([asked(flow, size) for flow in flows for size in SIZES])
    right = np.array([[table(asked(flow, size)) for size in SIZES] for flow in flows])  # (seed, size, skill, grade)
    by_grade = right.mean(2)
    whole = by_grade.mean(2)
    counts = [parameters_in(Path(flows[0].snapshot(f"sft-{size}"))) for size in SIZES]
    grows = slope([math.log(count) for count in counts], whole)
    parts = [Part("right answers over all grades per e-fold of parameters", grows, 0.0, "above")]
    parts += [
        Part(
            f"right answers of {size}: grade {GRADES[0]} less grade {GRADES[-1]}",
            nested_interval(by_grade[:, i, 0] - by_grade[:, i, -1]),
            0.0,
            "above",
        )
        for i, size in enumerate(SIZES)
    ]
    mean = right.mean(0)
    notes = [
        f"{size} ({count:,} parameters), all grades: {show(nested_interval(whole[:, i]))}"
        for i, (size, count) in enumerate(zip(SIZES, counts, strict=True))
    ]
    notes += [
        f"all grades, {larger} less {smaller}: {show(nested_interval(whole[:, i + 1] - whole[:, i]))}"
        for i, (smaller, larger) in enumerate(pairwise(SIZES))
    ]
    notes += [
        f"{size}, {skill}: " + ", ".join(f"grade {g} {share:.2f}" for g, share in zip(GRADES, row, strict=True))
        for size, rows in zip(SIZES, mean, strict=True)
        for skill, row in zip(GRADED, rows, strict=True)
    ]
    lines = [Line(size, i, list(GRADES), by_grade.mean(0)[i].tolist(), points=True) for i, size in enumerate(SIZES)]
    return Finding(parts, notes, curves([Panel("", "grade", "share of right answers", lines)], columns=1, height=3.2))


def table(config: Evaluate) -> np.ndarray:
    """(skills, grades): the share of right answers."""
    outcomes: dict[tuple[str, int], list[float]] = {}
    for row in read_lines(Path(config.out) / "samples.jsonl"):
        request = parse([Turn(**turn) for turn in row["prompt"]])
        outcomes.setdefault((request.skill, request.grade), []).append(float(row["scores"]["gold/correct"]))
    return np.array([[np.mean(outcomes[skill, grade]) for grade in GRADES] for skill in GRADED])


CLAIM = Claim(
    name="graded-skills",
    claim="The graded skills of the gold world tell models of different size apart: the more parameters a model of the "
    "ladder has, taught the same, the more of them it answers, and of each model a harder grade is answered less.",
    source="the gold world of this package (docs/world.md)",
    statistic=f"Share of right replies at temperature {CERTAIN:g} of fine-tuned models of sizes {', '.join(SIZES)} to "
    f"the skills {', '.join(GRADED)} of grades {GRADES[0]} to {GRADES[-1]}, the mean over skills and grades; its "
    "least-squares slope in ln of the parameters, and grades compared, within a seed. Intervals over seeds; 5 seeds "
    "see a slope of 1.7 deviations between seeds in four of five tries.",
    rule="Every interval lies wholly above 0.",
    measure=measure,
)
