"""Advantages without a critic do as well as with one at equal samples; a warmed critic does no worse."""

from collections.abc import Sequence

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.policies import difference, level, show
from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Point, plane
from accord.stages.ppo.config import Ppo

MARGIN = 0.05  # gold points that count as none
SAMPLES = 4  # replies to a prompt, which a group is made of
WARMUP = 4  # iterations in which the critic learns alone; the policy then has as many iterations as the others


def configs(flow: GoldFlow) -> dict[str, Ppo]:
    """Runs of equally many replies in every iteration in which the policy learns."""
    plain = {"samples": SAMPLES, "batch_size": flow.scale.rollouts // SAMPLES}
    steps = flow.scale.iterations
    return {
        "gae": flow.ppo("critics-gae", **plain),
        "gae, separate critic": flow.ppo("critics-separate", **plain, critic="separate"),
        "gae, warmed critic": flow.ppo(
            "critics-warm", **plain, critic="separate", critic_warmup=WARMUP, steps=steps + WARMUP
        ),
        "rloo": flow.ppo("critics-rloo", **plain, advantages="rloo"),
        "grpo": flow.ppo("critics-grpo", **plain, advantages="grpo"),
    }


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold helpfulness on evaluation prompts, paired."""
    flows = cells.base(seeds)
    cells.run([config for flow in flows for config in configs(flow).values()])
    names = {label: config.out.rsplit("/", 1)[-1] for label, config in configs(flows[0]).items()}
    cells.run([flow.evaluate(of) for flow in flows for of in names.values()])

    def part(ours: str, theirs: str) -> Part:
        groups = difference(flows, names[ours], names[theirs], "gold/helpful", TRAINED)
        return Part(f"gold helpfulness, {ours} − {theirs}", nested_interval(groups), -MARGIN, "above")

    parts = [part("rloo", "gae"), part("grpo", "gae"), part("gae, warmed critic", "gae, separate critic")]
    gold = {k: nested_interval(level(flows, of, "gold/helpful", TRAINED)) for k, of in names.items()}
    kl = {k: nested_interval(level(flows, of, "kl", TRAINED)) for k, of in names.items()}
    notes = [f"{k}: gold helpfulness {show(gold[k])}, KL {kl[k].mean:.2f} nats" for k in names]
    points = [Point(k, i, kl[k], gold[k]) for i, k in enumerate(names)]
    return Finding(parts, notes, plane(points, "KL, nats", "gold helpfulness"))


CLAIM = Claim(
    name="critics",
    claim="At equal samples group-relative advantages do no worse than GAE with a critic, and a critic that learned "
    "before the policy moved does no worse than one that has not.",
    source="Ahmadian et al. 2024 (RLOO); Shao et al. 2024 (GRPO); Huang et al. 2024",
    statistic=f"Paired difference in gold helpfulness on evaluation prompts after PPO with {SAMPLES} replies a prompt: "
    "RLOO and GRPO against GAE with a critic on the policy's trunk; a separate critic warmed for "
    f"{WARMUP} iterations against the same one started cold, the policy learning in equally many. Intervals over "
    "seeds.",
    rule=f"Each lower bound is above −{MARGIN:g} gold points.",
    measure=measure,
)
