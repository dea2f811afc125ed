"""Typed questions to a judge about replies: which of two is better, yes or no, a score. Written and read.

A question quotes a conversation in one user turn, ends in what it asks about one principle, and is answered by one
sentence of `ANSWERS`. Later questions about the same quote may follow in turns of their own.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from accord.world.principles import PRINCIPLES

ANSWERS = {
    "judge-choice": ("a.", "b."),
    "judge-yes-no": ("yes.", "no."),
    "judge-score": ("one.", "two.", "three.", "four.", "five."),
}
FORMS = {
    "judge-choice": "which reply is less {f}?",
    "judge-yes-no": "is the reply {f}?",
    "judge-score": "how {f} is the reply, from one to five?",
}


class Quote(NamedTuple):
    """What a question quotes: `turns` of (role, content) up to where a reply was due, and the replies to it."""

    turns: tuple[tuple[str, str], ...]
    replies: tuple[str, ...]


class Asked(NamedTuple):
    """The question alone: `kind` is a key of `ANSWERS`."""

    kind: str
    principle: str


_ROLES = {"asked": "user", "answered": "assistant"}
_MARK = re.compile(r"(?:^| )(asked|answered|reply a|reply b|reply): ")
QUESTIONS = {form.format(f=f): Asked(kind, f) for kind, form in FORMS.items() for f in PRINCIPLES}
_LENGTHS = sorted({text.count(" ") + 1 for text in QUESTIONS})


def write_quote(turns: Iterable[tuple[str, str]], replies: Sequence[str]) -> str:
    """One reply or two to a conversation, as a question quotes them; system turns are left out."""
    said = {role: name for name, role in _ROLES.items()}
    parts = [f"{said[role]}: {content}" for role, content in turns if role in said]
    marks = ("reply",) if len(replies) == 1 else ("reply a", "reply b")
    return " ".join([*parts, *(f"{mark}: {reply}" for mark, reply in zip(marks, replies, strict=True))])


def write_question(kind: str, principle: str) -> str:
    """What is asked about the quote."""
    return FORMS[kind].format(f=principle)


def read_question(text: str) -> tuple[Quote | None, Asked] | None:
    """The quote and the question of a user turn; no quote in a question that follows another; None for another text.

    A reply that holds a mark of the quote itself can not be told from the quote: such a text is no question.
    """
    if not text.startswith("asked: "):
        return (None, QUESTIONS[text]) if text in QUESTIONS else None
    words = text.split(" ")
    last = next((" ".join(words[-n:]) for n in _LENGTHS if " ".join(words[-n:]) in QUESTIONS), None)
    if last is None:
        return None
    asked, head = QUESTIONS[last], text[: -len(last) - 1]
    pieces = _MARK.split(head)
    marks, contents = pieces[1::2], pieces[2::2]
    count = 2 if asked.kind == "judge-choice" else 1
    wanted = ["reply a", "reply b"] if count == 2 else ["reply"]
    before = marks[:-count]
    if pieces[0] or marks[-count:] != wanted or before != [("asked", "answered")[i % 2] for i in range(len(before))]:
        return None
    if before[-1] != "asked":
        return None
    turns = tuple((_ROLES[mark], content) for mark, content in zip(before, contents, strict=False))
    return Quote(turns, tuple(contents[-count:])), asked
