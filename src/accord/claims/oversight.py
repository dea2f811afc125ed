"""Labelers weaker than the task mislead; a critique helps them, and a wrong critic misleads even better ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.feedback import POWER, SETS, asked, preferred, priced, right_share, told, under
from accord.claims.lab.findings import HARMFUL
from accord.claims.lab.oversee import Aid, Oversee
from accord.claims.lab.policies import level, show
from accord.claims.lab.recipes import GoldFlow, harm_sources
from accord.disk import read_json
from accord.evaluation.statistics import Interval, nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.constitution.config import Constitution
from accord.stages.dpo.config import Dpo

ACCURACIES = (0.55, 0.7, 0.85, 0.99)
WEAKEST, STRONG, BEST = ACCURACIES[0], ACCURACIES[2], ACCURACIES[-1]
AIDS: tuple[Aid, ...] = ("none", "critique", "wrong")
LABELS = 600  # comparisons of each arm, at most
SIDES = ("first", "second")


def criticised(flow: GoldFlow, side: str) -> Constitution:
    """A reply to each harmful prompt and the fine-tuned model's critique of it; the two sides differ in their seed."""
    seed = flow.seed + 50 * SIDES.index(side)
    data = harm_sources(2 * flow.scale.harmful_prompts, flow.seed + 1600)
    return under(flow, f"criticised-{side}", SETS[1], data=data, revisions=1, seed=seed)


def labels(flow: GoldFlow, accuracy: float, aid: Aid) -> Oversee:
    """What people of this accuracy, aided like this, say of the two replies."""
    first, second = (criticised(flow, side).out for side in SIDES)
    name = f"labels-{name_of(accuracy, aid)}"
    return Oversee(**flow.common(name), first=first, second=second, accuracy=accuracy, aid=aid)


def policy(flow: GoldFlow, accuracy: float, aid: Aid) -> Dpo:
    """DPO on their labels."""
    file = Path(labels(flow, accuracy, aid).out) / "comparisons.jsonl"
    return preferred(flow, name_of(accuracy, aid), file, LABELS, LABELS)


def name_of(accuracy: float, aid: Aid) -> str:
    return f"oversight-{accuracy:g}-{aid}"


def grid() -> list[tuple[float, Aid]]:
    return [(accuracy, aid) for accuracy in ACCURACIES for aid in AIDS]


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold harm by the labelers' accuracy, alone, aided, and aided by a wrong critic."""
    flows = cells.base(seeds)
    cells.run([criticised(flow, side) for flow in flows for side in SIDES])
    for step in (labels, policy):
        cells.run([step(flow, *point) for flow in flows for point in grid()])
    cells.run([asked(flow, of) for flow in flows for of in ("sft", *(name_of(*point) for point in grid()))])
    unsafe = {point: level(flows, told(name_of(*point)), "gold/harm_share", HARMFUL) for point in grid()}
    right = {
        point: np.array([right_share(Path(labels(flow, *point).out) / "comparisons.jsonl") for flow in flows])
        for point in grid()
    }

    def change(of: tuple[float, Aid], against: tuple[float, Aid]) -> Interval:
        pairs = zip(unsafe[of], unsafe[against], strict=True)
        return nested_interval([float(after.mean() - before.mean()) for after, before in pairs])

    aided = nested_interval(right[WEAKEST, "critique"] - right[WEAKEST, "none"])
    trust = nested_interval(right[STRONG, "wrong"] - right[STRONG, "none"])
    parts = [
        Part(
            f"unsafe replies after labels of {WEAKEST:.0%} − of {BEST:.0%}",
            change((WEAKEST, "none"), (BEST, "none")),
            0.0,
            "above",
        ),
        Part(f"right labels at {WEAKEST:.0%}, with a critique − alone", aided, 0.0, "above"),
        Part(
            f"unsafe replies at {WEAKEST:.0%}, with a critique − alone",
            change((WEAKEST, "critique"), (WEAKEST, "none")),
            0.0,
            "below",
        ),
        Part(f"right labels at {STRONG:.0%}, with a wrong critic − alone", trust, 0.0, "below"),
        Part(
            f"unsafe replies at {STRONG:.0%}, with a wrong critic − alone",
            change((STRONG, "wrong"), (STRONG, "none")),
            0.0,
            "above",
        ),
    ]
    facts = [read_json(Path(labels(flow, WEAKEST, "critique").out) / "lineage.json") for flow in flows]
    notes = [spoken(facts), f"sft: {priced(flows, 'sft')}"]
    notes += [
        f"{accuracy:.0%}, {aid}: {show(nested_interval(right[accuracy, aid]))} of the labels right; "
        f"{priced(flows, name_of(accuracy, aid))}"
        for accuracy, aid in grid()
    ]
    lines = [
        Line(aid, i, ACCURACIES, [float(np.mean([s.mean() for s in unsafe[a, aid]])) for a in ACCURACIES], points=True)
        for i, aid in enumerate(AIDS)
    ]
    base = float(np.mean([s.mean() for s in level(flows, told("sft"), "gold/harm_share", HARMFUL)]))
    panel = Panel("", "right alone", "unsafe replies, harmful and red-team", lines, level=base, level_label="SFT")
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def spoken(facts: Sequence[dict]) -> str:
    """How often the critic tells the two replies of a pair, and how often it is right."""
    shares = nested_interval([one["words"] / one["comparisons"] for one in facts])
    known = [one["words_right"] for one in facts if one["words_right"] is not None]
    right = show(nested_interval(known)) if known else "n/a"
    return f"the critic tells the replies of {show(shares)} of the pairs, and is right in {right} of them"


CLAIM = Claim(
    name="oversight",
    claim="Labelers that are weaker than the task mislead; a critique helps them, and a wrong critic misleads them.",
    source="Casper et al. 2023 (limits of RLHF, arXiv:2307.15217); Saunders et al. 2022 (self-critiquing models, "
    "arXiv:2206.05802)",
    statistic="Two replies of the fine-tuned model to each harmful prompt that differ in gold harm, at most "
    f"{LABELS}, labelled by people who alone are right in {', '.join(f'{a:.0%}' for a in ACCURACIES)}; alone, with "
    "the fine-tuned model's critique of each reply, or with its verdict turned round. Who hears a critic adds the "
    "log-odds of .9 to what they see (signal detection), whoever the critic is. DPO on each set of labels, in as many "
    "steps; share of unsafe replies by gold on harmful and red-team prompts, and share of labels in the order of gold "
    f"harm. Means over seeds and differences by seed; intervals over seeds; {POWER}",
    rule=f"Labels of {WEAKEST:.0%} leave more unsafe replies than labels of {BEST:.0%}; at {WEAKEST:.0%} a critique "
    f"makes more labels right and leaves fewer unsafe replies; at {STRONG:.0%} a wrong critic makes fewer labels "
    "right and leaves more: each with its whole interval.",
    measure=measure,
)
