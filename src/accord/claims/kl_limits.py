"""Too weak a KL penalty and the reward is hacked; too strong a one and nothing is learned; the best lies between."""

from collections.abc import Sequence

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.policies import choosing, difference, level, measuring, show
from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.ppo.config import Ppo

BETAS = (0.0, 0.02, 0.1, 0.4, 2.0, 20.0)
WEAK = 0.02  # the price at which gold is seen to turn; other claims share its cells


def hunted(flow: GoldFlow, name: str, beta: float = WEAK, **changes: object) -> Ppo:
    """PPO at one price of KL, twice as long as a plain run and at a rate that does not fall: time to be exploited."""
    settings: dict[str, object] = {"schedule": "constant", "learning_rate": 6e-4, "mini_batch_size": 64}
    steps = 2 * flow.scale.iterations
    return flow.ppo(name, kl_coefficient=beta, **{**settings, "steps": steps, **changes})


def run_config(flow: GoldFlow, beta: float) -> Ppo:
    """PPO on the helpful preference model at one price of KL."""
    return hunted(flow, name_of(beta), beta)


def name_of(beta: float) -> str:
    return f"beta-{beta:g}"


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold helpfulness at every β; the best one inside, found on half of the prompts, against both ends on the rest."""
    flows = cells.base(seeds)
    cells.run([run_config(flow, beta) for flow in flows for beta in BETAS])
    cells.run([flow.evaluate(name) for flow in flows for name in ("sft", *map(name_of, BETAS))])
    best = best_inside(
        [float(np.mean([g.mean() for g in level(flows, name_of(b), "gold/helpful", TRAINED, choosing)])) for b in BETAS]
    )

    def against(other: float) -> Part:
        groups = difference(flows, name_of(best), name_of(other), "gold/helpful", TRAINED, measuring)
        interval = nested_interval(groups)
        return Part(f"gold helpfulness, best β inside − β = {other:g}", interval, 0.0, "above")

    parts = [against(BETAS[0]), against(BETAS[-1])]
    gold = [nested_interval(level(flows, name_of(b), "gold/helpful", TRAINED)) for b in BETAS]
    kl = [nested_interval(level(flows, name_of(b), "kl", TRAINED)) for b in BETAS]
    proxy = [nested_interval(level(flows, name_of(b), "reward/helpful", TRAINED)) for b in BETAS]
    notes = [f"best β inside, by the other half of the prompts: {best:g}"]
    notes += [
        f"β = {b:g}: gold helpfulness {show(g)}, preference-model score {p.mean:+.2f}, KL {k.mean:.2f} nats"
        for b, g, p, k in zip(BETAS, gold, proxy, kl, strict=True)
    ]
    notes.append(f"SFT: gold helpfulness {show(nested_interval(level(flows, 'sft', 'gold/helpful', TRAINED)))}")
    places = list(range(len(BETAS)))
    lines = [
        Line("gold helpfulness", 0, places, [g.mean for g in gold], points=True),
        Line("preference-model score", 1, places, [p.mean for p in proxy], points=True),
    ]
    label = "β, in order: " + ", ".join(f"{b:g}" for b in BETAS)
    return Finding(parts, notes, curves([Panel("", label, "score", lines)], columns=1, height=3.4))


def best_inside(gold: Sequence[float]) -> float:
    """The β with the highest gold score that is neither the first nor the last."""
    return BETAS[1 + int(np.argmax(gold[1:-1]))]


CLAIM = Claim(
    name="kl-limits",
    claim="With β → 0 the reward is hacked, with β → ∞ nothing is learned; in between lies an optimum of gold reward.",
    source="KL-regularised RL; Stiennon et al. 2020; Bai et al. 2022",
    statistic=f"Gold helpfulness on evaluation prompts after PPO at β = {', '.join(f'{b:g}' for b in BETAS)}: paired "
    "difference of the best β inside to the smallest and to the largest. The best is chosen on one half of the prompts "
    "and measured on the other; intervals over seeds.",
    rule="Both lower bounds are above 0.",
    measure=measure,
)
