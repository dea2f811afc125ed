"""Three rounds of labels, models and policies, on fresh replies or on those of the start: two claims compare them.

    fresh:   SFT ─► labels ─► model ─► policy 1 ─► labels of its replies ─► model of both ─► policy 2 ─► …
    static:  SFT ─► labels ─► model ─► policy 1    more labels of SFT's  ─► model of both ─► policy 2    …

Both label as many prompts, the same ones, in a round, and every policy begins at SFT: what differs is who replied.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from accord.claims.lab.cells import Cells
from accord.claims.lab.recipes import GoldFlow
from accord.config import Config
from accord.stages.online.config import Annotate
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference
from accord.stages.sample.config import Sample

ROUNDS = 3
ARMS = ("fresh", "static")
CRITERION = "helpful"


def name(arm: str, number: int, step: str = "policy") -> str:
    """The run folder of a step; the first round is of both arms."""
    return f"rounds-{arm if number > 1 else 'first'}-{number}-{step}"


def replies(flow: GoldFlow, arm: str, number: int) -> Sample:
    """Two replies each to a round's prompts: of SFT, or of the policy of the round before."""
    source = name(arm, number - 1) if arm == "fresh" and number > 1 else "sft"
    count = 2 * flow.scale.preference_prompts // ROUNDS  # of which the preference split is asked
    return flow.sample(
        name(arm, number, "sample"),
        model=flow.snapshot(source),
        data=f"world:prompts?count={count}&seed={flow.seed + 120 + 10 * number}",
    )


def labels(flow: GoldFlow, arm: str, number: int) -> Annotate:
    samples = replies(flow, arm, number).out
    return compared(flow, name(arm, number, "annotate"), samples)


def compared(flow: GoldFlow, folder: str, samples: str) -> Annotate:
    """People compare sampled replies under the one criterion."""
    return flow.annotate(folder, samples=samples, criteria=[CRITERION], judged=[], slices={}, judged_slices={})


def comparisons(annotate: Annotate) -> str:
    return str(Path(annotate.out) / f"comparisons-{CRITERION}.jsonl")


def model(flow: GoldFlow, arm: str, number: int) -> Preference:
    """A preference model on the labels of all rounds so far."""
    data = {f"round-{k}": comparisons(labels(flow, arm, k)) for k in range(1, number + 1)}
    return flow.helpful().model_copy(update={**flow.common(name(arm, number, "model")), "data": data})


def policy(flow: GoldFlow, arm: str, number: int) -> Ppo:
    return flow.ppo(name(arm, number), rewards={CRITERION: flow.snapshot(name(arm, number, "model"))})


STEPS: tuple[Callable[[GoldFlow, str, int], Config], ...] = (replies, labels, model, policy)


def run_rounds(cells: Cells, flows: Sequence[GoldFlow]) -> None:
    """Every step of every round of both arms, for all seeds."""
    for number in range(1, ROUNDS + 1):
        for step in STEPS:
            cells.run([step(flow, arm, number) for flow in flows for arm in (ARMS if number > 1 else ARMS[:1])])
