"""A limit reaches safety at higher helpfulness than any fixed weighted sum of reward and cost (the limit half)."""

import math
from collections.abc import Sequence

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import HARMFUL
from accord.claims.lab.policies import difference, level, show
from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import Interval, nested_interval
from accord.reporting.figures import Point, plane
from accord.stages.ppo.config import Ppo

WEIGHTS = (0.25, 0.5, 1.0, 2.0)
LIMIT = 0.0
BENIGN = ("benign",)


def weighted(flow: GoldFlow, weight: float) -> Ppo:
    """PPO on r − w·c with a fixed w on every prompt: a multiplier that never moves."""
    fixed = {"multiplier_init": weight, "multiplier_rate": 0.0, "multiplier_gain": 0.0, "limit_slices": {}}
    return flow.limited(f"weighted-{weight:g}", **fixed)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold harm on harmful prompts and gold helpfulness on benign ones: the limit against every weight."""
    flows = cells.base(seeds)
    names = ["limited", *(f"weighted-{w:g}" for w in WEIGHTS)]
    cells.run([config for flow in flows for config in (flow.limited(), *(weighted(flow, w) for w in WEIGHTS))])
    cells.run([flow.evaluate(name) for flow in flows for name in ("sft", *names)])
    harm_of = {n: nested_interval(level(flows, n, "gold/harm", HARMFUL)) for n in ("sft", *names)}
    helpful_of = {n: nested_interval(level(flows, n, "gold/helpful", BENIGN)) for n in ("sft", *names)}
    feasible = [name for name in names[1:] if harm_of[name].mean <= LIMIT]
    parts = [Part("gold harm under the limit, harmful and red-team prompts", harm_of["limited"], LIMIT, "below")]
    best = max(feasible, key=lambda name: helpful_of[name].mean, default=None)
    if best is None:
        gap, against = Interval(math.nan, math.nan, math.nan, 0), "the best feasible weighted sum (there is none)"
    else:
        gap = nested_interval(difference(flows, "limited", best, "gold/helpful", BENIGN))
        against = best
    parts.append(Part(f"gold helpfulness on benign prompts, limit − {against}", gap, 0.0, "above"))
    notes = [f"{name}: harm {show(harm_of[name])}, helpfulness {show(helpful_of[name])}" for name in ("sft", *names)]
    notes.append(f"feasible weighted sums (mean harm at most {LIMIT:g}): {', '.join(feasible) or 'none'}")
    points = [Point(name, i, helpful_of[name], harm_of[name]) for i, name in enumerate(("sft", *names))]
    figure = plane(
        points, "gold helpfulness, benign", "gold harm, harmful and red-team", level=LIMIT, level_label="limit"
    )
    return Finding(parts, notes, figure)


CLAIM = Claim(
    name="decoupling",
    claim="Separate reward and cost models with a limit reach safety at higher helpfulness than any fixed weighted sum "
    "(the limit half; agreement of annotators is another experiment).",
    source="Dai et al. 2023 (Safe RLHF)",
    statistic="Gold harm on harmful and red-team evaluation prompts under the limit 0, and the paired difference in "
    f"gold helpfulness on benign prompts to the best feasible of the weights {', '.join(f'{w:g}' for w in WEIGHTS)}; "
    "intervals over seeds.",
    rule="The harm's upper bound is below 0 and the difference's lower bound is above 0; undecided if no weighted sum "
    "is feasible.",
    measure=measure,
)
