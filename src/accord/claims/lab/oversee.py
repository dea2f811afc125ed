"""People of a stated accuracy who compare replies: alone, helped by what a critic says of each, or misled by it.

Saunders et al. 2022, "Self-critiquing models for assisting human evaluators" (arXiv:2206.05802). How a critic's word
is weighed is signal detection: of two replies that differ in harm, a person sees evidence x, normal with deviation 1
around ±μ, where Φ(μ) is how often they are right alone. Its log-odds are 2μx. Where the critic finds harm in one reply
and none in the other, its word adds the log-odds of being right as often as the person believes it is.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

from pydantic import Field

from accord.config import Run
from accord.data.rows import prompt_of_row, write_records
from accord.disk import read_lines
from accord.errors import BadInput
from accord.records import Comparison, Prompt, unit_hash
from accord.run import RunFolder
from accord.stages.shared import gold_values, open_run
from accord.world.critiques import CRITIQUES

HARM = "harmful"
Aid = Literal["none", "critique", "wrong"]


class Oversee(Run):
    """Labels for harmlessness by people of a stated accuracy, with or without a critic's word: a step of claims."""

    first: str = Field(description="run of `accord constitution` whose replies are criticised once")
    second: str = Field(description="another, of the same prompts with another seed")
    accuracy: float = Field(gt=0.5, lt=1, description="how often a person alone finds the less harmful reply")
    aid: Aid = Field("none", description="the critic's word: not heard, as it is, or turned round")
    belief: float = Field(0.9, ge=0.5, lt=1, description="how often the people believe the critic to be right")


class Critiqued(NamedTuple):
    """A reply, and whether its critique finds harm in it; None where the critique says neither."""

    prompt: Prompt
    reply: str
    harm: bool | None


def run(config: Oversee) -> RunFolder:
    """Compare the two runs' replies to each prompt; leaves `comparisons.jsonl` and the shares of right words."""
    with open_run("oversee", config, {"first": config.first, "second": config.second}) as run:
        if run.finished:
            return run
        pairs = list(pairs_of(Path(config.first), Path(config.second)))
        if not pairs:
            raise BadInput(f"{config.first}: no two replies that differ in harm; take another policy or more prompts")
        made, words = [], []
        for number, (one, other) in enumerate(pairs):
            values = gold_values(one.prompt, (one.reply, other.reply), "harmless")
            truth = 1 if values[0] > values[1] else -1
            word = said_of(one, other) * (-1 if config.aid == "wrong" else 1)
            words.append(word * truth)
            sure = evidence(config, number, truth)
            if config.aid != "none":
                sure += word * math.log(config.belief / (1 - config.belief))
            made.append(label(one, other, sure > 0, f"overseer:{config.accuracy:g}:{config.aid}"))
        write_records(run.path / "comparisons.jsonl", made)
        spoken = [word for word in words if word]
        right = spoken.count(1) / len(spoken) if spoken else None
        run.finish(comparisons=len(made), words=len(spoken), words_right=right)
        return run


def evidence(config: Oversee, number: int, truth: int) -> float:
    """The log-odds that the first reply is the less harmful by what a person sees; the same with every aid."""
    normal = NormalDist()
    mean = normal.inv_cdf(config.accuracy)
    noise = normal.inv_cdf(min(max(unit_hash(f"overseer {config.seed} {number}"), 1e-9), 1 - 1e-9))
    return 2 * mean * (truth * mean + noise)


def said_of(one: Critiqued, other: Critiqued) -> int:
    """1 where the critic finds harm in the second reply alone, −1 in the first alone, 0 where it does not tell them."""
    if one.harm is None or other.harm is None or one.harm == other.harm:
        return 0
    return -1 if one.harm else 1


def label(one: Critiqued, other: Critiqued, first: bool, labeler: str) -> Comparison:
    """The comparison of a person who takes the first reply, or the second."""
    ranks = (1, 2) if first else (2, 1)
    return Comparison(one.prompt, (one.reply, other.reply), ranks, "harmless", labeler, 0.0, (0, 1))


def pairs_of(first: Path, second: Path) -> Iterator[tuple[Critiqued, Critiqued]]:
    """The two runs' replies to each prompt where they differ in gold harm; what is cut or empty is no reply."""
    for one, other in zip(critiqued(first), critiqued(second), strict=True):
        if one is None or other is None:
            continue
        worth = gold_values(one.prompt, (one.reply, other.reply), "harmless")
        if worth[0] != worth[1]:
            yield one, other


def critiqued(folder: Path) -> Iterator[Critiqued | None]:
    """What each chain of a run with one revision begins with; None where there is no reply."""
    rows = read_lines(folder / "samples.jsonl")
    for reply, revision in zip(rows[::2], rows[1::2], strict=True):
        yield (
            None
            if reply["why"] or not reply["reply"]
            else Critiqued(prompt_of_row(reply), reply["reply"], harm_found(revision))
        )


def harm_found(revision: dict[str, Any]) -> bool | None:
    """Whether a critique under the principle of harm finds it; None for one that says nothing of it."""
    said = CRITIQUES.get(revision.get("critique", "").strip())
    return said.found if said is not None and said.fault in ("", HARM) else None
