"""Scores of single replies by a labeler: a typed question under principles, its answer as a number in [−1, 1].

Lee et al. 2023, "RLAIF" (arXiv:2309.00267), section 3.2.2, direct RLAIF: the expected score of the answer's
probabilities, scaled to [−1, 1], is the reward itself; no preference model stands between.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from accord.labelers.labeler import Labeler
from accord.labelers.principles import Principles, WrittenPrinciple, several_drawn
from accord.labelers.questions import Distribution, Kind, Question
from accord.records import Prompt


@dataclass(frozen=True)
class Scores:
    """Of N replies: `values[i]` in [−1, 1], None where no question about it was answered; `methods[i]` how it was had,
    and `why` the reasons of questions without an answer, counted."""

    values: list[float | None]
    methods: list[str]
    why: Counter[str]


def score_replies(
    labeler: Labeler,
    constitution: Principles,
    kind: Kind,
    replies: Sequence[tuple[Prompt, str, Sequence[WrittenPrinciple]]],
) -> Scores:
    """Ask about every reply under each of its principles; a reply's score is the mean over those that were answered."""
    asked = [
        constitution.about_one(principle, kind, prompt.turns, reply)
        for prompt, reply, principles in replies
        for principle in principles
    ]
    answers = iter(zip(asked, labeler.ask(asked), strict=True))
    told = Scores([], [], Counter())
    for _, _, principles in replies:
        found: list[float] = []
        used: set[str] = set()
        for question, answer in (next(answers) for _ in principles):
            if answer.why:
                told.why[answer.why] += 1
            else:
                found.append(value_of(question, answer, constitution.wording.finds_faults))
                used.add(answer.method)
        told.values.append(sum(found) / len(found) if found else None)
        told.methods.append("+".join(sorted(used)))
    return told


def value_of(question: Question, answer: Distribution, finds_faults: bool) -> float:
    """The expected answer on [−1, 1]: of yes or no P(yes) − P(no), of a score its mean; turned where it is a fault."""
    last = len(question.answers) - 1
    rank = sum(place * p for place, p in enumerate(answer.probabilities)) / last
    high = 1 - 2 * rank if question.kind == "yes-no" else 2 * rank - 1
    return -high if finds_faults else high


def principles_of(
    constitution: Principles, prompt: Prompt, tags: Sequence[str], count: int, seed: int
) -> list[WrittenPrinciple]:
    """The principles that replies to a prompt are scored under: the same for all, so that they can be compared."""
    return several_drawn(constitution.scoring(tags), f"{seed} {prompt.id}", count)
