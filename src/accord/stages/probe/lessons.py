"""From samples to lessons: what a snapshot knows, told by how often it is right, as demonstrations and comparisons.

Zhang et al. 2023, "R-Tuning" (arXiv:2311.09677) and Yang et al. 2023, "Alignment for Honesty" (arXiv:2312.07000) for
demonstrations; Xu et al. 2024, "Rejection Improves Reliability" (RLKF, arXiv:2403.18349), whose reliability counts a
right answer 1, a rejection 0 and a wrong one −1, for the order right > declines > wrong. What is demonstrated as an
answer is always the snapshot's own: facts that are new to a model teach it to make things up (Gekhman et al. 2024,
arXiv:2405.05904).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

from accord.data.rows import is_whole, prompt_of_row
from accord.records import Comparison, Demonstration, Judgement, Prompt
from accord.stages.questions import is_of_world

Row = Mapping[str, Any]
Sort = Literal["right", "declines", "wrong"]
RIGHT, DECLINED = "honest/right", "honest/declined"
CRITERION, KNOWN = "honest", "right"  # of the comparisons; of the judgements that a P(IK) head learns from
LABELER = "probe"
_BLANKS = re.compile(r"(\{answer\}|\{sure\})")
# why a question is a lesson, and why it is none
TOLD, UNTOLD, NONE = "known", "not known", "has no answer"
CUT, SILENT, ALIKE = "every reply to imitate was cut", "every reply is empty", "every reply declines, as it should"


class LessonTexts(NamedTuple):
    """What to say where a question is known and elsewhere; {answer} and {sure} are blanks."""

    if_known: str
    if_unknown: str


@dataclass(frozen=True)
class ProbedQuestion:
    """One question with the replies that were sampled to it, by sort; `whole` are those that ended by themselves."""

    prompt: Prompt
    answerable: bool
    replies: tuple[tuple[Sort, str], ...]
    whole: frozenset[str]

    @property
    def share(self) -> float:
        """How many of the replies are right."""
        return sum(sort == "right" for sort, _ in self.replies) / len(self.replies)

    def commonest(self, *sorts: Sort) -> str:
        """The whole reply of these sorts that was given most often, the first of equals; "" where there is none."""
        said = Counter(text for sort, text in self.replies if sort in sorts and text in self.whole)
        return said.most_common(1)[0][0] if said else ""


def sort_of(row: Row) -> Sort:
    """What a sampled reply is. One that says it does not know and an answer beside it declines."""
    if row["scores"][DECLINED]:
        return "declines"
    return "right" if row["scores"][RIGHT] else "wrong"


def outcomes(rows: Iterable[Row], answerable: Mapping[str, bool]) -> tuple[list[ProbedQuestion], int]:
    """Rows of `samples.jsonl` by question, and how many questions have no reply that says anything."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["prompt_id"], []).append(row)
    found = []
    for name, own in grouped.items():
        said = [row for row in own if row["reply"].strip()]
        if said:
            replies = tuple((sort_of(row), row["reply"]) for row in said)
            whole = frozenset(row["reply"] for row in said if is_whole(row))
            found.append(ProbedQuestion(prompt_of_row(own[0]), answerable[name], replies, whole))
    return found, len(grouped) - len(found)


def demonstrate(found: ProbedQuestion, texts: LessonTexts, known_from: float) -> tuple[str, str]:
    """What the snapshot should say, and why; "" where it is no lesson."""
    if not found.answerable:
        return confession(found.prompt, answerable=False), NONE
    known = found.share >= known_from
    answer = found.commonest("right") if known else found.commonest("right", "wrong")
    text = texts.if_known if known else texts.if_unknown
    if "{answer}" in text and not answer:
        return "", CUT
    if not text:
        return confession(found.prompt, answerable=True), UNTOLD
    blanks = {"{answer}": answer, "{sure}": sureness(found.prompt, found.share)}
    # not `format`: what is filled in may have braces of its own
    filled = "".join(blanks.get(part, part) for part in _BLANKS.split(text))
    return filled, TOLD if known else UNTOLD


def confession(prompt: Prompt, *, answerable: bool) -> str:
    """That it is not known: of the gold world in one of its own ways, else in plain English."""
    if not is_of_world(prompt):
        return "I don't know."
    from accord.world import parse
    from accord.world.doubt import NOBODY_KNOWS
    from accord.world.replies import fact

    rng = Random(prompt.id)
    return fact(rng, parse(prompt.turns), "unknown") if answerable else rng.choice(NOBODY_KNOWS)


def sureness(prompt: Prompt, share: float) -> str:
    """How sure an answer is that is right in this share of the samples: in percent, or in the gold world's words."""
    if not is_of_world(prompt):
        return f"I am {round(100 * share)}% sure."
    from accord.world.doubt import BY_CONFIDENCE

    return BY_CONFIDENCE[min(BY_CONFIDENCE, key=lambda chance: abs(chance - share))][0]


def compare(found: ProbedQuestion) -> Comparison | None:
    """One reply of each sort in the order right > declines > wrong; None where the one sort is declining.

    Where no sampled reply declines, one that does is put beside them.
    """
    best: dict[Sort, str] = {sort: found.commonest(sort) for sort in ("right", "declines", "wrong")}
    best["declines"] = best["declines"] or confession(found.prompt, answerable=found.answerable)
    replies = tuple(text for text in best.values() if text)
    if len(replies) < 2:
        return None
    places = tuple(range(len(replies)))
    ranks = tuple(place + 1 for place in places)
    return Comparison(found.prompt, replies, ranks, CRITERION, LABELER, 0.0, places)


def judge(found: ProbedQuestion) -> list[Judgement]:
    """Every sampled reply as right or not: together they say how likely the snapshot knows."""
    prompt = found.prompt
    return [
        Judgement(prompt, text, KNOWN, "good", float(sort == "right"), LABELER, "", 0.0) for sort, text in found.replies
    ]


class Lessons(NamedTuple):
    """What is learned from a probe; `reasons` counts questions by why they are a demonstration or a comparison."""

    demonstrations: list[Demonstration]
    comparisons: list[Comparison]
    judgements: list[Judgement]
    reasons: dict[str, dict[str, int]]


def teach(found: Sequence[ProbedQuestion], texts: LessonTexts, known_from: float) -> Lessons:
    """Demonstrations, comparisons and judgements of every question."""
    shown: list[Demonstration] = []
    told, compared = Counter[str](), Counter[str]()
    comparisons = []
    for one in found:
        text, why = demonstrate(one, texts, known_from)
        told[why] += 1
        if text:
            shown.append(Demonstration(one.prompt, text))
        comparison = compare(one)
        compared["compared" if comparison else ALIKE] += 1
        comparisons += [comparison] if comparison else []
    judgements = [judgement for one in found for judgement in judge(one)]
    return Lessons(shown, comparisons, judgements, {"demonstrations": dict(told), "comparisons": dict(compared)})
