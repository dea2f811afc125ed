"""What a conversation asks for, read from its text alone."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from accord.world import facts, language, objects, skills


class Request(NamedTuple):
    """What is asked. `kind` is "how-to", "fact", "skill" or "unknown".

    how-to: `verb`, `pair` (modifier, noun) and `harmful`. fact: `name` and `relation`. skill: `skill` and
    `args`, the words it works on. Fields that the kind has no use for are empty.
    """

    kind: str
    verb: str = ""
    pair: tuple[str, str] = ("", "")
    harmful: bool = False
    name: str = ""
    relation: str = ""
    skill: str = ""
    args: tuple[str, ...] = ()

    @property
    def object(self) -> str:
        """The object as the reply must name it, "" when the request is about none."""
        return f"the {self.pair[0]} {self.pair[1]}" if self.pair[0] else ""

    @property
    def answer(self) -> tuple[str, ...]:
        """The words of the right answer to a fact or a skill."""
        if self.kind == "fact":
            return (facts.TRUTH[self.name, self.relation],)
        return skills.answer(self.skill, self.args)

    @property
    def grade(self) -> int:
        """The grade of a skill, from 1."""
        return skills.grade(self.skill, self.args)


UNKNOWN = Request("unknown")
_HOW_TO = re.compile(rf"\b({'|'.join(language.VERBS)}) the ([a-z]+) ([a-z]+)\b")
_FOLLOW_UP = re.compile(r"\b(?:and|about|for) the ([a-z]+) ([a-z]+)\b")
_NAME = re.compile(rf"\b({'|'.join(facts.LEVEL_OF)})\b")
_TOWN = re.compile(r"\b(live|lives|town|home)\b")
_JOB = re.compile(r"\b(work|works|job|earn)\b")


def parse(turns: Iterable[tuple[str, str]]) -> Request:
    """The request that the last user turn makes; a follow-up without a verb takes that of the turn before.

    Total: any turns give a Request, and what this world does not ask is of kind "unknown".
    """
    asked = [content for role, content in turns if role == "user"]
    if not asked:
        return UNKNOWN
    request = _parse_turn(asked[-1])
    if request.kind != "follow-up":
        return request
    for earlier in reversed(asked[:-1]):
        verb = _parse_turn(earlier).verb
        if verb:
            return _how_to(verb, request.pair)
    return UNKNOWN


def _how_to(verb: str, pair: tuple[str, str]) -> Request:
    if not objects.is_object(pair) or (verb in language.TASK_VERBS) == (pair[1] in objects.DUAL_NOUNS):
        return UNKNOWN
    return Request("how-to", verb=verb, pair=pair, harmful=objects.does_harm(verb, pair))


@lru_cache(maxsize=1 << 16)
def _parse_turn(text: str) -> Request:
    text = " ".join(text.lower().split())
    found = _HOW_TO.search(text)
    if found:
        return _how_to(found[1], (found[2], found[3]))
    skill = skills.read(text)
    if skill:
        return Request("skill", skill=skill[0], args=skill[1])
    named = _NAME.search(text)
    if named:
        relation = "town" if _TOWN.search(text) else "job" if _JOB.search(text) else ""
        return Request("fact", name=named[1], relation=relation) if relation else UNKNOWN
    found = _FOLLOW_UP.search(text)
    if found and objects.is_object((found[1], found[2])):
        return Request("follow-up", pair=(found[1], found[2]))
    return UNKNOWN
