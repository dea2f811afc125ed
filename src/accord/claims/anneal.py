"""A high KL weight first and a lower one once the preference model has seen the policy's own replies."""

from collections.abc import Sequence
from pathlib import Path

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.policies import Groups, difference, level, show
from accord.claims.lab.recipes import GoldFlow
from accord.config import Config
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Column, Dots, dots

# β of the first and of the second round; all have the same geometric mean
SCHEDULES = {"annealed": (0.6, 0.06), "fixed": (0.19, 0.19), "reversed": (0.06, 0.6)}


def rounds(flow: GoldFlow, name: str) -> list[Config]:
    """Policy, replies of it, their labels, a preference model on all data so far, policy: one after the other."""
    first, second = SCHEDULES[name]
    half = max(flow.scale.iterations // 2, 1)
    start = flow.ppo(f"{name}-0", kl_coefficient=first, steps=half)
    sample = flow.sample(
        f"{name}-sample",
        model=flow.snapshot(f"{name}-0"),
        data=f"world:prompts?count={flow.scale.preference_prompts}&seed={flow.seed + 120}",
    )
    annotate = flow.annotate(f"{name}-annotate", samples=sample.out, criteria=["helpful"], judged=[], slices={})
    files = {**flow.helpful_data(), "now": str(Path(annotate.out) / "comparisons-helpful.jsonl")}
    model = flow.helpful().model_copy(update={"out": str(flow.root / f"{name}-helpful"), "data": files})
    again = flow.ppo(
        f"{name}-1",
        model=flow.snapshot(f"{name}-0"),
        reference=flow.snapshot("sft"),
        rewards={"helpful": flow.snapshot(f"{name}-helpful")},
        kl_coefficient=second,
        steps=half,
    )
    return [start, sample, annotate, model, again]


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold helpfulness after two rounds under each schedule, at the same number of samples and labels."""
    flows = cells.base(seeds)
    plans = [rounds(flow, name) for flow in flows for name in SCHEDULES]
    for step in zip(*plans, strict=True):
        cells.run(list(step))
    last = {name: f"{name}-1" for name in SCHEDULES}
    cells.run([flow.evaluate(of) for flow in flows for of in ("sft", *last.values())])

    def against(other: str) -> Groups:
        return difference(flows, last["annealed"], last[other], "gold/helpful", TRAINED)

    interval = nested_interval(against("fixed"))
    parts = [Part("gold helpfulness, annealed − fixed β", interval, 0.0, "above")]
    gold = {name: nested_interval(level(flows, of, "gold/helpful", TRAINED)) for name, of in last.items()}
    kl = {name: nested_interval(level(flows, of, "kl", TRAINED)) for name, of in last.items()}
    notes = [
        f"{name} (β {SCHEDULES[name][0]:g}, then {SCHEDULES[name][1]:g}): gold helpfulness {show(gold[name])}, KL "
        f"{kl[name].mean:.2f} nats"
        for name in SCHEDULES
    ]
    notes.append(f"annealed − reversed: {show(nested_interval(against('reversed')))}")
    column = Column("", "gold helpfulness", [Dots("gold helpfulness", 0, [gold[name] for name in SCHEDULES])])
    return Finding(parts, notes, dots(list(SCHEDULES), [column]))


CLAIM = Claim(
    name="anneal",
    claim="Starting with a high KL weight and lowering it as the preference model improves beats a fixed weight.",
    source="Casper et al. 2023 (limits of RLHF, arXiv:2307.15217)",
    statistic="Two rounds: policy, replies of it to new prompts, labels, a preference model on all comparisons so far, "
    f"policy. Paired difference in gold helpfulness on evaluation prompts of β {SCHEDULES['annealed'][0]:g} then "
    f"{SCHEDULES['annealed'][1]:g} to β {SCHEDULES['fixed'][0]:g} in both, at the same samples and labels; intervals "
    "over seeds.",
    rule="The lower bound is above 0.",
    measure=measure,
)
