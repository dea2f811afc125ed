"""What people answer: checked at the door, kept in the order of the item, and read as records.

A page shows replies in an order of its own; an answer speaks of places on the page, and the store keeps it with both.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from accord.feedback.store.questions import Item, Mode
from accord.records import Comparison, Demonstration, Judgement

LONGEST = 20_000  # characters of a reply that somebody writes
Written = Annotated[str, StringConstraints(max_length=LONGEST, pattern=r"\S")]
HUMAN = "human"


class PersonAnswer(BaseModel):
    """What every answer has."""

    model_config = ConfigDict(extra="forbid", strict=True)
    seconds: float = Field(0.0, ge=0, le=86_400)  # that the page was in front
    pasted: int = Field(0, ge=0, le=10 * LONGEST)  # letters that were pasted from elsewhere than the page

    def problem(self, item: Item) -> str:
        """Why it is no answer to this item; empty where it is one."""
        return ""


class Ranks(BaseModel):
    """Ranks of the replies by their place on the page, 1 for the best, equal ranks for a tie; and how clear it is."""

    model_config = ConfigDict(extra="forbid", strict=True)
    ranks: list[int] = Field(min_length=2, max_length=8)
    strength: int = Field(0, ge=0, le=3)
    all_bad: bool = False


class CompareAnswer(PersonAnswer):
    """Ranks under every criterion of the item, each for itself."""

    choices: dict[str, Ranks]

    def problem(self, item: Item) -> str:
        if set(self.choices) != set(item.criteria):
            return f"an answer is due under each of {', '.join(item.criteria)}"
        for criterion, choice in self.choices.items():
            ranks = sorted(set(choice.ranks))
            if len(choice.ranks) != len(item.replies) or ranks != list(range(1, len(ranks) + 1)):
                return f"{criterion}: {len(item.replies)} ranks from 1 on, without gaps"
            if choice.strength and len(ranks) == 1:
                return f"{criterion}: a tie has no strength"
        return ""


class DemonstrateAnswer(PersonAnswer):
    """The reply that the prompt should have had."""

    reply: Written


class SafetyAnswer(PersonAnswer):
    """Whether the reply is safe; of one that is not, what it harms and how severely."""

    safe: bool
    category: str = Field("", max_length=80)
    severity: int = Field(0, ge=0, le=3)

    def problem(self, item: Item) -> str:
        return "a safe reply has no category and no severity" if self.safe and (self.category or self.severity) else ""


class EditAnswer(PersonAnswer):
    """A better version of the reply: preferred to it, and one to learn from."""

    reply: Written

    def problem(self, item: Item) -> str:
        return "nothing was changed" if self.reply.strip() == item.replies[0].strip() else ""


class RateAnswer(PersonAnswer):
    """How a conversation went, from 0 to 4, and why in words."""

    rating: int = Field(ge=0, le=4)
    comment: str = Field("", max_length=2000)


ANSWERS: dict[Mode, type[PersonAnswer]] = {
    "compare": CompareAnswer,
    "demonstrate": DemonstrateAnswer,
    "safety": SafetyAnswer,
    "edit": EditAnswer,
    "chat": CompareAnswer,
    "redteam": CompareAnswer,
    "rate": RateAnswer,
}


def to_body(answer: PersonAnswer, shown: Sequence[int]) -> dict[str, Any]:
    """What an event keeps: the answer with ranks in the order of the item, and the order that was shown."""
    body = answer.model_dump()
    for choice in body.get("choices", {}).values():
        ranks = [0] * len(shown)
        for place, reply in enumerate(shown):
            ranks[reply] = choice["ranks"][place]
        choice["ranks"] = ranks
    return {**body, "order": list(shown)}


def best_first(ranks: Sequence[int], item: Item) -> tuple[int, ...]:
    """Ranks with 1 for the best, of an answer that gave 1 to what the item asks for."""
    return tuple(max(ranks) + 1 - rank for rank in ranks) if item.picks == "worse" else tuple(ranks)


def chosen_of(item: Item, body: Mapping[str, Any]) -> int:
    """The reply with which a conversation goes on: rank 1 under the first criterion, of a tie the one shown first."""
    ranks = body["choices"][item.criteria[0]]["ranks"]
    return next(reply for reply in body["order"] if ranks[reply] == 1)


def labeler_of(person: int, group: str) -> str:
    """Who said so: no name, but the same for all that one person says, and the group in which they value alike."""
    return ":".join(part for part in (HUMAN, group, str(person)) if part)


def records_of(item: Item, body: Mapping[str, Any], labeler: str) -> list[Comparison | Judgement | Demonstration]:
    """The records that an answer gives, one for each criterion."""
    if "choices" in body:
        return [
            Comparison(
                item.prompt,
                item.replies,
                best_first(choice["ranks"], item),
                criterion,
                labeler,
                float(choice["strength"]),
                tuple(body["order"]),
                all_bad=choice["all_bad"],
            )
            for criterion, choice in body["choices"].items()
        ]
    if item.mode == "rate":
        rated = (float(body["rating"]), labeler, "", 0.0)
        return [Judgement(item.prompt, item.replies[0], criterion, "rating", *rated) for criterion in item.criteria]
    if item.mode == "safety":
        said = (float(body["safe"]), labeler, body["category"], float(body["severity"]))
        return [Judgement(item.prompt, item.replies[0], criterion, "safe", *said) for criterion in item.criteria]
    if item.mode == "demonstrate":
        return [Demonstration(item.prompt, body["reply"])]
    better = (body["reply"], item.replies[0])
    return [
        Demonstration(item.prompt, body["reply"]),
        *(Comparison(item.prompt, better, (1, 2), criterion, labeler, 0.0, (0, 1)) for criterion in item.criteria),
    ]
