"""What every labeler does, wherever it is: answer typed questions, and write; each answer by way of the journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from accord.labelers.questions import Distribution, Question
from accord.records import Turn, content_hash


@dataclass(frozen=True)
class Writing:
    """How texts are drawn. `numbers` are the prompts' numbers in the random stream, their places by default.

    `plain`: the last turn is the beginning of a text, which is gone on with, and no conversation.
    """

    max_new_tokens: int
    temperature: float
    seed: int
    numbers: Sequence[int] | None = None
    plain: bool = False


class Draft(NamedTuple):
    """A text that was written; `why` says where it is not whole, or not there."""

    text: str
    why: str = ""


class Labeler(Protocol):
    """Who answers. `name` stands in every record of it; `key` is what its answers are found by, and what was measured
    of it: two models of this machine whose folders have one name are two."""

    name: str
    key: str

    def ask(self, questions: Sequence[Question]) -> list[Distribution]:
        """An answer to every question, in their order."""

    def write(self, prompts: Sequence[Sequence[Turn]], how: Writing) -> list[Draft]:
        """A text to every prompt, in their order."""


def label_id(labeler: Labeler, question: Question) -> str:
    """What a labeler's answer to a question is found by in the journal."""
    return content_hash("label", labeler.key, question.id)


def label_row(found_by: str, labeler: Labeler, answer: Distribution, **facts: Any) -> dict[str, Any]:
    """The journal's row of an answer; `facts` say what it took."""
    said = {"probabilities": list(answer.probabilities), "method": answer.method, "why": answer.why}
    return {"id": found_by, **told_by(labeler), **said, **facts}


def text_id(labeler: Labeler, turns: Sequence[Turn], how: Writing, number: int) -> str:
    """What a text of a labeler's, of its own random numbers, is found by in the journal."""
    drawn = (how.max_new_tokens, how.temperature, how.seed, number, how.plain)
    return content_hash("text", labeler.key, tuple(turns), *drawn)


def text_row(found_by: str, labeler: Labeler, draft: Draft, **facts: Any) -> dict[str, Any]:
    """The journal's row of a text; `facts` say what it took."""
    return {"id": found_by, **told_by(labeler), **draft._asdict(), **facts}


def draft_of(row: dict[str, Any]) -> Draft:
    """The text that a row of the journal holds."""
    return Draft(row["text"], row["why"])


def told_by(labeler: Labeler) -> dict[str, str]:
    """What a row of the journal says of who it is of."""
    return {"labeler": labeler.name, "key": labeler.key}


def answer_of(row: dict[str, Any]) -> Distribution:
    """The answer that a row of the journal holds."""
    return Distribution(tuple(row["probabilities"]), row["method"], row["why"])
