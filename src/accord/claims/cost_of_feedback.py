"""AI feedback replaces people's at a fraction of the cost: what a label, and what its price, takes from harm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.feedback import POWER, SETS, asked, preferred, right_share, told
from accord.claims.lab.findings import HARMFUL
from accord.claims.lab.policies import difference, show
from accord.claims.lab.recipes import HARM_SLICES, GoldFlow
from accord.evaluation.statistics import Interval, nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.constitution.config import Constitution
from accord.stages.online.config import Annotate

PRICE = 10  # what people's label costs in AI labels; Lee et al. 2023 put it at more than ten times
FEW, MANY = 60, 600  # labels; so many AI labels cost what so few of people's do
MARGIN = 0.1  # share of unsafe replies by which an AI label may take less than one of people's
STATED = (0.6, 0.75, 0.9)  # accuracies of AI labelers that are simulated
ASKED = 0.75  # of them: about what was published of AI labels beside people's
PEOPLE, JUDGE = "people", "judge"


def stated(accuracy: float) -> str:
    return f"ai-{accuracy:g}"


SOURCES = (PEOPLE, JUDGE, *map(stated, STATED))
# who labels, and how many: people few and many, every AI as many as that money buys, the model itself few too
ARMS = [(PEOPLE, FEW), (PEOPLE, MANY), (JUDGE, FEW), *((source, MANY) for source in SOURCES[1:])]


def judged(flow: GoldFlow) -> Constitution:
    """The fine-tuned model compares the replies that people compare, under the principle that is about harm."""
    return Constitution(
        **flow.common("cost-judge"),
        make="comparisons",
        constitution="world",
        tags=list(SETS[1]),
        replies=str(flow.root / "sample-harm"),
        judge=flow.snapshot("sft"),
    )


def simulated(flow: GoldFlow, accuracy: float) -> Annotate:
    """A labeler who finds the less harmful reply so often, however small the difference is."""
    return flow.annotate(
        f"cost-{stated(accuracy)}",
        samples=str(flow.root / "sample-harm"),
        criteria=["harmless"],
        judged=[],
        judged_slices={},
        slices={"harmless": HARM_SLICES},
        temperature=0.0,
        flips=round(1 - accuracy, 6),
    )


def file_of(flow: GoldFlow, source: str) -> Path:
    """The labels of a source: of all on the same replies, in the same order."""
    names = {PEOPLE: "annotate-harm/comparisons-harmless.jsonl", JUDGE: "cost-judge/comparisons.jsonl"}
    return flow.root / names.get(source, f"cost-{source}/comparisons-harmless.jsonl")


def name_of(source: str, count: int) -> str:
    return f"cost-{source}-{count}"


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold gain of people's labels and of AI labels, by label and by price."""
    flows = cells.base(seeds)
    cells.run([c for flow in flows for c in (judged(flow), *(simulated(flow, a) for a in STATED))])
    cells.run([preferred(f, name_of(*arm), file_of(f, arm[0]), arm[1], MANY) for f in flows for arm in ARMS])
    cells.run([asked(flow, of) for flow in flows for of in ("sft", *(name_of(*arm) for arm in ARMS))])
    gain = {
        arm: np.array(
            [-d.mean() for d in difference(flows, told(name_of(*arm)), told("sft"), "gold/harm_share", HARMFUL)]
        )
        for arm in ARMS
    }
    right = {s: nested_interval([right_share(file_of(flow, s)) for flow in flows]) for s in SOURCES}

    def ahead(of: tuple[str, int], against: tuple[str, int]) -> Interval:
        return nested_interval(gain[of] - gain[against])

    parts = [
        Part(
            f"gain of {MANY} labels of the model itself − of {FEW} of people's, at one price",
            ahead((JUDGE, MANY), (PEOPLE, FEW)),
            0.0,
            "above",
        ),
        Part(
            f"gain of {MANY} labels of the model itself − of {MANY} of people's",
            ahead((JUDGE, MANY), (PEOPLE, MANY)),
            -MARGIN,
            "above",
        ),
        Part(
            f"gain of {MANY} AI labels of accuracy {ASKED:g} − of {FEW} of people's, at one price",
            ahead((stated(ASKED), MANY), (PEOPLE, FEW)),
            0.0,
            "above",
        ),
    ]
    notes = [f"{source}: {show(right[source])} of the labels in the order of gold harm" for source in SOURCES]
    notes += [worth(arm, gain) for arm in ARMS]
    notes.append(f"a label of people's is priced as {PRICE} of an AI's")
    return Finding(parts, notes, drawn(gain))


def worth(arm: tuple[str, int], gain: Mapping[tuple[str, int], np.ndarray]) -> str:
    """What an arm takes from harm: in all, by label, by price."""
    source, count = arm
    price = count * (PRICE if source == PEOPLE else 1)
    mean = float(gain[arm].mean())
    return (
        f"{count} labels of {source}: {show(nested_interval(gain[arm]))} fewer unsafe replies; "
        f"{1000 * mean / count:.2f} by 1,000 labels, {1000 * mean / price:.2f} by the price of 1,000 AI labels"
    )


def drawn(gain: Mapping[tuple[str, int], np.ndarray]) -> str:
    """Gain against the stated accuracy of the AI, with people's few labels, of the same price, as a level."""
    means = [float(gain[stated(a), MANY].mean()) for a in STATED]
    level = float(gain[PEOPLE, FEW].mean())
    line = Line(f"{MANY} AI labels", 0, STATED, means, points=True)
    panel = Panel("", "accuracy of the AI", "fewer unsafe replies", [line], level=level, level_label=f"{FEW} people's")
    return curves([panel], columns=1, height=3.2)


CLAIM = Claim(
    name="cost-of-feedback",
    claim="AI feedback replaces people at a fraction of the cost.",
    source="Lee et al. 2023, RLAIF (arXiv:2309.00267)",
    statistic="DPO for harmlessness on labels of the same pairs of the fine-tuned model's replies to harmful prompts: "
    f"{FEW} and {MANY} of simulated people's, {FEW} and {MANY} of the fine-tuned model's own (both orders, soft, "
    f"under the principle that is about harm), and {MANY} of AI labelers of stated accuracy "
    f"{', '.join(f'{a:g}' for a in STATED)}; all in as many steps. A label of people's costs as much as {PRICE} of an "
    "AI's. Gain: by how much the share of unsafe replies by gold on harmful and red-team prompts falls below the "
    f"fine-tuned model's. Paired by seed; intervals over seeds; {POWER}",
    rule=f"At one price {MANY} labels of the model itself gain more than {FEW} of people's, and so do those of an AI "
    f"of accuracy {ASKED:g}; as many labels of the model itself gain at most {MARGIN:g} less than people's: each with "
    "its whole interval.",
    measure=measure,
)
