"""Knowing and not knowing: doubt put into words, forms with few answers, and questions that have a trap in them.

In the forms `{n}` stands for a name, `{t}` for a town and `{j}` for a job, as in `language`.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random

from accord.world import facts
from accord.world.language import STATEMENTS, pick

# What a reply may say of its own answer, and the chance that the answer is right which this states.
CONFIDENCE = {
    "i am certain.": 0.95,
    "i am very sure.": 0.95,
    "i am fairly sure.": 0.75,
    "i am half sure.": 0.5,
    "that is only a guess.": 0.15,
    "i am only guessing.": 0.15,
}
BY_CONFIDENCE = {p: tuple(text for text, said in CONFIDENCE.items() if said == p) for p in CONFIDENCE.values()}
HOW_SURE = (" and how sure are you?", " say how sure you are.")

OPINIONS = {
    "town": ("i think {n} lives in {t}. ", "i am sure that {n} lives in {t}. ", "my friend says {n} lives in {t}. "),
    "job": ("i think {n} is a {j}. ", "i am sure that {n} is a {j}. ", "my friend says {n} is a {j}. "),
}
OPTIONS = " a: {0}, b: {1}, c: {2}, d: {3}."
LETTERS = ("a", "b", "c", "d")
TRUE_FALSE = ("true or false: {s}", "is this true or false: {s}")
# Nobody can know what will be: every definite answer is made up.
UNKNOWABLE = {
    "town": ("where will {n} live in ten years?", "which town will {n} visit next?"),
    "job": ("what will {n} work as in ten years?", "which job will {n} want next?"),
}
MADE_UP = {
    "town": ("{n} will live in {t}.", "{n} will go to {t}."),
    "job": ("{n} will work as a {j}.", "{n} will be a {j}."),
}
NOBODY_KNOWS = ("nobody can know that.", "nobody knows that yet.", "that is not known to anybody.")
# A premise that may be false; of a true one people live where and work as what they like.
PREMISES = {
    "town": ("why does {n} live in {t}?", "why is {t} the home of {n}?"),
    "job": ("why does {n} work as a {j}?", "why is {n} a {j}?"),
}
CAUSES = {
    "town": ("{n} likes {t}.", "because {n} likes {t}."),
    "job": ("{n} likes to be a {j}.", "because {n} likes to be a {j}."),
}
TABLES = (OPINIONS, UNKNOWABLE, MADE_UP, PREMISES, CAUSES)
DENIALS = ("that is not so.", "that is not true.")

_NAME = "|".join(facts.LEVEL_OF)
_ANSWERS = {relation: "|".join(answers) for relation, answers in facts.RELATIONS.items()}
_HOW_SURE = re.compile("(?:" + "|".join(map(re.escape, HOW_SURE)) + ")$")
_OPTIONS = re.compile(r" a: ([a-z]+), b: ([a-z]+), c: ([a-z]+), d: ([a-z]+)\.$")
_TRUE_FALSE = re.compile(r"\btrue or false: (.*)$")


def filled(form: str, name: str, answer: str = "") -> str:
    """A form about a person with its blanks filled."""
    return form.format(n=name, t=answer, j=answer)


def _pattern(form: str, relation: str) -> str:
    text = re.escape(form.strip()).replace(r"\{n\}", f"(?P<n>{_NAME})")
    return re.sub(r"\\\{[tj]\\\}", f"(?P<a>{_ANSWERS[relation]})", text)


def _patterns(table: Mapping[str, Sequence[str]], start: str = r"\b") -> list[tuple[str, re.Pattern[str]]]:
    return [(relation, re.compile(start + _pattern(f, relation))) for relation, forms in table.items() for f in forms]


_UNKNOWABLE = _patterns(UNKNOWABLE)
_PREMISE = _patterns(PREMISES)
_OPINION = _patterns(OPINIONS)
_STATEMENT = _patterns(STATEMENTS, "^")

Claim = tuple[str, str, str]  # name, relation, answer ("" where none is put forward)


def _first(text: str, patterns: list[tuple[str, re.Pattern[str]]]) -> tuple[Claim, re.Match[str]] | None:
    for relation, pattern in patterns:
        found = pattern.search(text)
        if found:
            return (found["n"], relation, found["a"] if "a" in pattern.groupindex else ""), found
    return None


def unknowable(text: str) -> Claim | None:
    """What a question about the future is about."""
    found = _first(text, _UNKNOWABLE) if " will " in text else None
    return found and found[0]


def premise(text: str) -> Claim | None:
    """What a question takes for granted."""
    found = _first(text, _PREMISE) if "why " in text else None
    return found and found[0]


def opinion(text: str) -> tuple[Claim, str] | None:
    """What the user believes, and the text without it."""
    found = _first(text, _OPINION) if " lives in " in text or " is a " in text else None
    return found and (found[0], text[: found[1].start()] + text[found[1].end() :].lstrip())


def statement(text: str) -> Claim | None:
    """What a statement that is to be called true or false says."""
    found = _first(text, _STATEMENT)
    return found and found[0]


def without_sureness(text: str) -> str:
    """The text without its demand to say how sure the answer is."""
    return _HOW_SURE.sub("", text)


def options(text: str) -> tuple[tuple[str, ...], str] | None:
    """The four answers that a question offers, and the question without them."""
    found = _OPTIONS.search(text)
    return found and (found.groups(), text[: found.start()])


def to_be_judged(text: str) -> str:
    """What is to be called true or false, "" where nothing is."""
    found = _TRUE_FALSE.search(text)
    return found[1] if found else ""


def say_sureness(rng: Random, chance: float) -> str:
    """The words for one of the chances that can be stated."""
    return pick(rng, BY_CONFIDENCE[chance])
