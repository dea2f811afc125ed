"""What travels between stages: frozen records with a content hash each.

A record has no field that only some stages fill; a new kind of thing is a new record. Ranks follow the
usual reading of a ranking: 1 is best, equal ranks are a tie.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")
JudgementKind = Literal["safe", "good", "rating"]
Finish = Literal["stop", "length"]
Uneven = Literal["drop", "cut"]  # what becomes of pairs whose sides part before the last turn

# One function of the prompt's hash decides what a prompt may be used for, so that no prompt a preference
# model was trained on is ever optimised or evaluated on. Upper bounds of the hash's unit interval.
SPLITS: dict[str, tuple[float, float]] = {
    "preference": (0.0, 0.5),
    "policy": (0.5, 0.8),
    "evaluation": (0.8, 1.0),
}


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


def as_messages(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """Turns as chat templates, servers and rows have them."""
    return [turn._asdict() for turn in turns]


def content_hash(*parts: object) -> str:
    """16 hex digits of SHA-256 over the JSON of `parts`; the id of every record."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text to pretrain on."""

    text: str
    source: str

    @property
    def id(self) -> str:
        return content_hash("document", self.text)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Turns that end where a reply is due. `slice` is the named part of the data it belongs to."""

    turns: tuple[Turn, ...]
    slice: str
    source: str

    @property
    def id(self) -> str:
        return content_hash("prompt", self.turns)

    @property
    def split(self) -> str:
        """The use that this prompt is reserved for, one of `SPLITS`.

        It depends on the first user turn alone (case and white space folded): conversations that begin alike
        stay on one side, whatever follows.
        """
        position = unit_hash(self.opening)
        return next(name for name, (low, high) in SPLITS.items() if low <= position < high)

    @property
    def opening(self) -> str:
        first = next((turn.content for turn in self.turns if turn.role == "user"), "")
        return " ".join(first.lower().split())


def slice_names(listed: str) -> tuple[str, ...]:
    """The slices that a knob lists, with commas between."""
    return tuple(listed.split(","))


def is_in_slices(prompt: Prompt, listed: str) -> bool:
    """Whether a prompt is in one of the slices listed; where none is named, every prompt is."""
    return not listed or any(is_part_of(prompt.slice, name) for name in slice_names(listed))


def is_part_of(slice_: str, name: str) -> bool:
    """Whether a slice is the one named or a part of it: `harmful/fraud` is a part of `harmful`."""
    return slice_ == name or slice_.startswith(f"{name}/")


def slices_above(slices: Iterable[str]) -> list[str]:
    """The slices and those that they are parts of, sorted, without the one that has no name."""
    found = {name[:end] for name in slices for end in [*(i for i, c in enumerate(name) if c == "/"), len(name)]}
    return sorted(found - {""})


def unit_hash(text: str) -> float:
    """A number in [0, 1) that is a function of the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()[:7], "big") / 2**56


def is_held_out(key: str, purpose: str, share: float) -> bool:
    """Whether what has this key (a prompt's opening, a document's id) is in the `share` that a purpose holds out.

    It hangs on nothing but the two texts, so every stage holds out the same; another purpose holds out others.
    """
    return unit_hash(key + purpose) < share


def fold_of(prompt: Prompt, folds: int) -> int:
    """Which of so many equal parts, counted from 0, the prompts that open like this one belong to."""
    return int(unit_hash(prompt.opening + "fold") * folds)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and an ideal reply."""

    prompt: Prompt
    reply: str

    @property
    def id(self) -> str:
        return content_hash("demonstration", self.prompt.turns, self.reply)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt, two or more replies and how someone ranked them under one criterion.

    `ranks[i]` belongs to `replies[i]`; 1 is best and equal ranks are a tie. `strength` is the margin of the
    choice in the labeler's units, 0 when none was given. `order` is the order in which the replies were shown.
    `probability` is the labeler's, from ½ to 1, that two replies are ordered as their ranks say (a soft label); a plain
    answer has 1. `all_bad` says that none of the replies will do ("both bad"), whatever their order.
    `snapshots[i]` names what wrote `replies[i]`; empty where that is not known.
    """

    prompt: Prompt
    replies: tuple[str, ...]
    ranks: tuple[int, ...]
    criterion: str
    labeler: str
    strength: float
    order: tuple[int, ...]
    probability: float = 1.0
    all_bad: bool = False
    snapshots: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        said = (self.probability, self.all_bad)
        more = () if said == (1.0, False) else said
        return content_hash(
            "comparison", self.prompt.turns, self.replies, self.ranks, self.criterion, self.labeler, *more
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """One reply judged alone: `kind` says what `value` means.

    `safe` and `good` are 0 or 1; `rating` is a number. `category` is empty and `severity` 0 when not given.
    """

    prompt: Prompt
    reply: str
    criterion: str
    kind: JudgementKind
    value: float
    labeler: str
    category: str
    severity: float

    @property
    def id(self) -> str:
        return content_hash(
            "judgement", self.prompt.turns, self.reply, self.criterion, self.kind, self.value, self.labeler
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """A sampled response as token ids; never re-encoded. `logprobs` are those it was sampled at.

    `ids` includes the stop token when `finish` is "stop"; a response cut at the length limit has none and
    `finish` is "length". `version` names the weights it came from.
    """

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    temperature: float
    version: str


def prompt_ids(records: Iterable[Prompt]) -> set[str]:
    """The ids of the prompts: what two data sets are compared by when an overlap must be refused."""
    return {record.id for record in records}
