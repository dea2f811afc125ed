"""AI feedback in the flow of the claims: the flow's own fine-tuned model criticises, revises and judges.

It can (docs/world.md, "Principles, critiques, revisions"), and not perfectly. What comes of its feedback is measured by
the truth, on prompts that nothing has learned from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.claims.lab.findings import HARMFUL
from accord.claims.lab.policies import level, show
from accord.claims.lab.recipes import EVALUATED, GoldFlow
from accord.data.rows import prompt_of_row
from accord.data.sources import read_comparisons
from accord.disk import read_lines
from accord.evaluation.statistics import nested_interval
from accord.objectives.ranking import ranked_pairs
from accord.stages.constitution.config import Constitution
from accord.stages.dpo.config import Dpo
from accord.stages.evaluate.config import Evaluate
from accord.stages.shared import gold_values
from accord.world import PRINCIPLES, judge

# Principles by how many they are. Sixteen of the twenty can be broken by a reply to a harmful request; the others are
# about questions, sums, and refusals of what is harmless.
SETS: dict[int, tuple[str, ...]] = {
    1: ("harmful",),
    16: tuple(name for name in PRINCIPLES if name not in ("overcautious", "false", "overconfident", "servile")),
}
ATTACKED = ("red-team-held-out",)  # families of attack that nothing has learned from
BENIGN, LOOK_ALIKE = ("benign",), ("look-alike",)
SLICES = ("benign", "harmful", "red-team", "look-alike", "harmful-held-out", "red-team-held-out")
DRAWN = 8  # times the prompts that a scale evaluates are drawn of each slice, of which a fifth is for evaluation
PASSES = 6  # over as many comparisons as the largest arm has: every arm of an experiment takes as many steps
POWER = "8 seeds see an effect of 1.2 deviations between seeds in four of five tries."


def under(flow: GoldFlow, name: str, principles: Sequence[str], **changes: Any) -> Constitution:
    """The fine-tuned model at work under some of the gold world's principles, on prompts of the preference split."""
    settings: dict[str, Any] = {
        **flow.common(name),
        "constitution": "world",
        "tags": list(principles),
        "model": flow.snapshot("sft"),
        "split": "preference",
        "max_new_tokens": 40,
    }
    return Constitution(**{**settings, **changes})


def told(of: str) -> str:
    """The name under which `asked` keeps what a snapshot says."""
    return f"feedback-{of}"


def asked(flow: GoldFlow, of: str) -> Evaluate:
    """A snapshot's replies, with the truth about them and no model's score."""
    count = DRAWN * flow.scale.evaluated
    data = {s: f"{EVALUATED[s]}?count={count}&seed={flow.seed + 300}" for s in SLICES}
    return flow.evaluate(of, f"evaluate-{told(of)}", data=data, reference="", rewards={}, costs={})


def preferred(flow: GoldFlow, name: str, comparisons: Path, count: int, most: int) -> Dpo:
    """DPO for harmlessness on the first `count` comparisons of a file, in as many steps as on `most`."""
    return flow.dpo(
        name, data=str(comparisons), criterion="harmless", beta=0.3, max_rows=count, epochs=PASSES * most / count
    )


def priced(flows: Sequence[GoldFlow], of: str) -> str:
    """What a snapshot is like: how safe, and at what price."""
    harm = nested_interval(level(flows, told(of), "gold/harm_share", HARMFUL), "share")
    refuses = nested_interval(level(flows, told(of), "gold/refusal", LOOK_ALIKE), "share")
    helpful = nested_interval(level(flows, told(of), "gold/helpful", BENIGN))
    return f"unsafe {show(harm)}, refuses {show(refuses)} of look-alikes, benign help {show(helpful)}"


def bare_share(flow: GoldFlow, of: str, slices: Sequence[str]) -> float:
    """Of a snapshot's refusals on some slices the share that give no reason; not a number where it refuses nothing."""
    rows = read_lines(flow.root / f"evaluate-{told(of)}" / "samples.jsonl")
    kinds = [judge(prompt_of_row(row).turns, row["reply"]).kind for row in rows if row["slice"] in slices]
    refusals = [kind for kind in kinds if kind in ("refusal", "refusal-explained")]
    return refusals.count("refusal") / len(refusals) if refusals else float("nan")


def right_share(comparisons: Path) -> float:
    """How often labels for harmlessness have the order of gold harm, among ordered pairs that differ in it."""
    right = []
    for one in read_comparisons(str(comparisons), "harmless").records:
        worth = gold_values(one.prompt, one.replies, "harmless")
        right += [worth[i] > worth[j] for i, j in ranked_pairs(one.ranks) if worth[i] != worth[j]]
    return sum(right) / len(right) if right else float("nan")
