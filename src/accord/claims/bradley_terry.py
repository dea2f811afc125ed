"""The probability of preference depends only on the score difference, and a well-specified model is calibrated."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.pairs import Scored, score, scored
from accord.claims.lab.recipes import COST_SLICES, GoldFlow
from accord.evaluation.calibration import preference_calibration, reliability_slope
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Reliability, reliability
from accord.stages.online.config import Annotate
from accord.stages.preference.config import Preference
from accord.stages.sample.config import Sample
from accord.stages.score.config import Score
from accord.world import judge, parse, value

TEMPERATURE = 0.5  # of the people; nobody slips, nobody looks at length or order
CRITERION = "harmless"  # nothing about it is overlooked, so that the planted model is exactly Bradley–Terry
BINS = 10


def people(flow: GoldFlow, name: str, samples: Sample) -> Annotate:
    """Well-specified people compare replies for harmlessness."""
    changes = {"samples": samples.out, "criteria": [CRITERION], "judged": [], "slices": {CRITERION: COST_SLICES}}
    return flow.annotate(name, **changes, temperature=TEMPERATURE, flips=0.0, equal_ties=False)


def configs(flow: GoldFlow) -> tuple[list[Sample], list[Annotate], list[Preference], list[Score]]:
    """Replies of both splits, people who compare them, the model of one split, its scores on the other."""
    # two replies to each of many prompts: pairs of one ranking would depend on each other
    learned, tested = (
        flow.sample(
            f"bt-sample-{split}",
            split=split,
            data=f"world:prompts?count={times * flow.scale.preference_prompts}&seed={flow.seed + seed}",
        )
        for split, times, seed in (("preference", 16, 140), ("evaluation", 12, 150))
    )
    learn, test = people(flow, "bt-people", learned), people(flow, "bt-people-test", tested)
    name = f"comparisons-{CRITERION}.jsonl"
    # one pass over much: a second one would make the model surer than it is right
    changes = {"data": str(Path(learn.out) / name), "criterion": CRITERION, "epochs": 1.0, "batch_size": 32}
    model = flow.helpful().model_copy(update={"out": str(flow.root / "bt-model"), **changes})
    scores = score(flow, "bt-scores", str(Path(test.out) / name), CRITERION, {"model": flow.snapshot("bt-model")})
    return [learned, tested], [learn, test], [model], [scores]


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Slope, excess calibration error, dependence on the level, and the planted log-odds."""
    tables = [table(list(scored(config))) for config in run_cells(cells, cells.base(seeds))]
    count = sum(len(t[0]) for t in tables)
    columns = np.array([statistics(*t) for t in tables]).T
    slope, excess, level = (nested_interval(column) for column in columns[:3])
    planted = nested_interval(columns[3], "r2")
    parts = [
        Part("reliability slope", slope, 0.8, "above"),
        Part("the same, from the other side", slope, 1.25, "below"),
        Part("calibration error beyond that of chance", excess, 0.02, "below"),
        Part("slope among pairs of high scores less slope among low ones", level, -0.5, "above"),
        Part("the same, from the other side", level, 0.5, "below"),
        Part("correlation of score differences with the planted log-odds", planted, 0.8, "above"),
    ]
    margins = np.concatenate([t[0] for t in tables])
    whole = preference_calibration(margins)
    notes = [
        f"accuracy {whole.accuracy.mean:.3f} on {count} pairs; the planted model's own is "
        f"{np.mean(1 / (1 + np.exp(-np.abs(np.concatenate([t[2] for t in tables]))))):.3f}",
        f"ECE {whole.ece:.3f} (equal mass), {whole.ece_width:.3f} (equal width); Brier {whole.brier:.3f}",
        f"Elo per score point: {400 / np.log(10) * slope.mean:.0f} (174 if calibrated)",
    ]
    bins = [(b.confidence, b.accuracy, b.low, b.high, b.n) for b in whole.bins]
    return Finding(parts, notes, reliability([Reliability("preference model", 0, bins)]))


def run_cells(cells: Cells, flows: Sequence[GoldFlow]) -> list[Score]:
    """The scores of every seed's test, made if they are not there."""
    made = [configs(flow) for flow in flows]
    for stage in zip(*made, strict=True):
        cells.run([config for of_seed in stage for config in of_seed])
    return [of_seed[-1][0] for of_seed in made]


def table(pairs: Sequence[Scored]) -> list[np.ndarray]:
    """Margins, mean scores and planted log-odds of every pair, each (n,), from the side of the preferred reply."""
    margins = np.array([pair.margin("model/logit") for pair in pairs])
    means = np.array([sum(pair.columns["model/logit"]) / 2 for pair in pairs])
    return [margins, means, np.array([log_odds(pair) for pair in pairs])]


def log_odds(pair: Scored) -> float:
    """The planted (v_better − v_worse) / T."""
    turns, replies = pair.comparison.prompt.turns, pair.comparison.replies
    harmful = parse(turns).harmful
    worth = [value(judge(turns, replies[k]), harmful, CRITERION) for k in (pair.better, pair.worse)]
    return (worth[0] - worth[1]) / TEMPERATURE


def statistics(margins: np.ndarray, means: np.ndarray, planted: np.ndarray) -> list[float]:
    """A seed's slope, ECE beyond chance, slope of the upper half by mean score less the lower, correlation."""
    upper = means > np.median(means)
    whole, high, low = (slope_of(margins[part]) for part in (np.ones(len(margins), bool), upper, ~upper))
    varies = margins.std() > 0 and planted.std() > 0
    correlation = float(np.corrcoef(_both_sides(margins), _both_sides(planted))[0, 1]) if varies else math.nan
    return [whole, excess_error(margins), high - low, correlation]


def slope_of(margins: np.ndarray) -> float:
    """The likeliest b of σ(b · margin), margins from the side of the preferred reply."""
    return reliability_slope(margins, np.ones(len(margins)), intercept=False).slope


def _both_sides(values: np.ndarray) -> np.ndarray:
    """Which reply is named first is arbitrary; with both, the mean is 0."""
    return np.concatenate([values, -values])


def excess_error(margins: np.ndarray) -> float:
    """ECE less what it is on average when the outcomes are drawn from the model's own probabilities.

    A calibrated model's ECE is above 0 by chance, by about √(2 p (1 − p) / (π n)) in a bin of n pairs. A pair of equal
    scores is half right whoever answers: it adds nothing to either.
    """
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    outcome = np.where(margins == 0, 0.5, margins > 0)
    order = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    gaps = [abs(outcome[part].mean() - confidence[part].mean()) * len(part) for part in order]
    variance = np.where(margins == 0, 0.0, confidence * (1 - confidence))
    chance = [np.sqrt(2 / np.pi * variance[part].sum()) for part in order]
    return float((sum(gaps) - sum(chance)) / len(margins))


CLAIM = Claim(
    name="bradley-terry",
    claim="The probability of preference depends only on the score difference, and a preference model of people who "
    "answer by Bradley–Terry is calibrated and finds their scores.",
    source="Bradley and Terry 1952; Bai et al. 2022, section 2",
    statistic=f"On replies to prompts of the evaluation split, compared by people of temperature {TEMPERATURE:g} "
    "without slips: slope b of the likeliest σ(b · score difference); expected calibration error (10 bins of equal "
    "mass) less its mean under the model's own probabilities; slope among pairs whose mean score is above the median "
    "less that of the others; correlation of score differences and planted log-odds. Means and intervals over seeds.",
    rule="The slope lies in (0.8, 1.25), the excess error below 0.02, the difference of slopes in (−0.5, 0.5), the "
    "correlation above 0.8, each with its whole interval.",
    measure=measure,
)
