"""What people are asked: items, one prompt each with the replies that it is about."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from accord.errors import BadInput
from accord.evaluation.checks import Known
from accord.records import Prompt, Turn, content_hash, unit_hash

Queued = Literal["compare", "demonstrate", "safety", "edit"]  # handed out to whoever comes
Live = Literal["chat", "redteam"]  # turns of a conversation, for the one who leads it
Mode = Literal[Queued, Live, "rate"]  # rate: what a conversation ends with
Picks = Literal["better", "worse"]  # which reply gets rank 1 on the page
QUEUED: tuple[Queued, ...] = get_args(Queued)
LIVE: tuple[Live, ...] = get_args(Live)
MODES: tuple[Mode, ...] = (*QUEUED, *LIVE, "rate")
# how many replies an item of a mode has, at least and at most
REPLIES: dict[Mode, tuple[int, int]] = {
    "compare": (2, 8),
    "demonstrate": (0, 0),
    "safety": (1, 1),
    "edit": (1, 1),
    "chat": (2, 2),
    "redteam": (2, 2),
    "rate": (1, 1),
}


WHOLE = -1  # what is said of all replies


class Aid(NamedTuple):
    """A text beside the replies, such as a critique; `about` is the number of the reply that it is about, or WHOLE."""

    about: int
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `criteria` are asked about separately; `tag` is the expertise that it asks for, `overlap` how many
    people answer it. `origins[i]`, which is never shown, says which snapshot and settings `replies[i]` came from.
    `talk` is the conversation that it is a turn of, as `chat/7`; `picks` what the page asks for. Half of the people see
    the `aids`. Who wants no `harmful` items gets none. One with a `known` answer under each criterion is a check item:
    everybody is asked, and no answer is a label. `score` is how far an ensemble disagrees about it."""

    mode: Mode
    prompt: Prompt
    replies: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tag: str = ""
    overlap: int = 1
    talk: str = ""
    picks: Picks = "better"
    aids: tuple[Aid, ...] = ()
    harmful: bool = False
    known: tuple[Known, ...] = ()
    score: float | None = None

    @property
    def id(self) -> str:
        """By content: the same question is asked once, however often it is added, but in every conversation anew, and
        apart from a check item."""
        more = () if (self.talk, self.picks) == ("", "better") else (self.talk, self.picks)
        more = (*more, "check") if self.known else more
        return content_hash("item", self.mode, self.prompt.turns, self.replies, self.criteria, *more)

    def check(self) -> "Item":
        """Itself; BadInput where nobody could answer it."""
        least, most = REPLIES[self.mode]
        where = f"{self.prompt.source}: a question of mode {self.mode}"
        if not least <= len(self.replies) <= most:
            raise BadInput(f"{where} has {least} to {most} replies, not {len(self.replies)}")
        if len({reply.strip() for reply in self.replies}) < len(self.replies) or not all(map(str.strip, self.replies)):
            raise BadInput(f"{where} has empty or equal replies, between which nobody can choose")
        if (self.mode != "demonstrate") != bool(self.criteria):
            raise BadInput(f"{where} needs {'no criterion' if self.criteria else 'a criterion'}")
        if not self.prompt.turns or self.prompt.turns[-1].role == "assistant" or self.overlap < 1:
            raise BadInput(f"{where} needs a prompt that ends where a reply is due, and an overlap of 1 or more")
        if not all(WHOLE <= aid.about < len(self.replies) and aid.text.strip() for aid in self.aids):
            raise BadInput(f"{where} has an aid that is empty, or about a reply that it has not")
        if self.known and not self._can_be_checked():
            raise BadInput(f"{where} cannot be a check item: a known answer ranks its replies, or says safe or unsafe")
        if self.score is not None and not math.isfinite(self.score):
            raise BadInput(f"{where} has a score that is not finite")
        return self

    def _can_be_checked(self) -> bool:
        """Whether the known answer is one to this question, and another answer would be wrong."""
        if len(self.known) != len(self.criteria):
            return False
        if self.mode == "safety":
            return all(known in ((0,), (1,)) for known in self.known)
        ranked = all(len(known) == len(self.replies) and min(known) == 1 for known in self.known)
        return self.mode == "compare" and ranked and any(len(set(known)) > 1 for known in self.known)


def is_aided(item: Item, person: int) -> bool:
    """Whether somebody sees the aids of an item: half of the people do, by a hash, the same whenever they ask."""
    return bool(item.aids) and unit_hash(f"aid {item.id} {person}") < 0.5


def item_to_json(item: Item) -> dict[str, Any]:
    """What of an item has no column of its own."""
    return {
        "prompt": [list(turn) for turn in item.prompt.turns],
        "slice": item.prompt.slice,
        "source": item.prompt.source,
        "replies": list(item.replies),
        "criteria": list(item.criteria),
        "origins": list(item.origins),
        **({"talk": item.talk, "picks": item.picks} if item.talk else {}),
        **({"aids": [list(aid) for aid in item.aids]} if item.aids else {}),
        **({"known": [list(known) for known in item.known]} if item.known else {}),
    }


def item_from_json(mode: Mode, body: Mapping[str, Any]) -> Item:
    """The item that `item_to_json` wrote; its tag, overlap and place in a line stand in columns."""
    prompt = Prompt(tuple(Turn(*turn) for turn in body["prompt"]), body["slice"], body["source"])
    return Item(
        mode,
        prompt,
        tuple(body["replies"]),
        tuple(body["criteria"]),
        tuple(body["origins"]),
        talk=body.get("talk", ""),
        picks=body.get("picks", "better"),
        aids=tuple(Aid(*aid) for aid in body.get("aids", ())),
        known=tuple(tuple(known) for known in body.get("known", ())),
    )
