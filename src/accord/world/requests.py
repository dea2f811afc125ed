"""What a conversation asks for, read from its text alone."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from accord.world import doubt, facts, language, objects, skills
from accord.world.critiques import REVIEWS
from accord.world.questions import read_question


class Request(NamedTuple):
    """What is asked. `kind` is one of how-to, fact, premise, unknowable, skill, multiple-choice, true-false, critique,
    judge-choice, judge-yes-no, judge-score and unknown.

    how-to: `verb`, `pair` (modifier, noun) and `harmful`. fact, premise, unknowable: `name` and `relation`; `claimed`
    is the answer that the user puts forward as an opinion or a premise. skill: `skill` and `args`, the words it works
    on. multiple-choice, true-false: the fact or skill behind it, and the `options` or what is `claimed`. `sure` says
    that the reply is to tell how sure it is. critique and the judge's questions: `principle`, and the `replies` to
    `subject` that they are about. Fields that the kind has no use for are empty.
    """

    kind: str
    verb: str = ""
    pair: tuple[str, str] = ("", "")
    harmful: bool = False
    name: str = ""
    relation: str = ""
    skill: str = ""
    args: tuple[str, ...] = ()
    claimed: str = ""
    options: tuple[str, ...] = ()
    sure: bool = False
    principle: str = ""
    replies: tuple[str, ...] = ()
    subject: "Request | None" = None

    @property
    def object(self) -> str:
        """The object as the reply must name it, "" when the request is about none."""
        return f"the {self.pair[0]} {self.pair[1]}" if self.pair[0] else ""

    @property
    def answer(self) -> tuple[str, ...]:
        """The words of the right answer to a fact or a skill, or to what offers or claims one."""
        if self.kind == "multiple-choice":
            return (doubt.LETTERS[self.options.index(self._replace(kind=self.base).answer[0])],)
        if self.kind == "true-false":
            return ("true" if self._replace(kind=self.base).answer[0] == self.claimed else "false",)
        if self.name:
            return (facts.TRUTH[self.name, self.relation],)
        return skills.answer(self.skill, self.args)

    @property
    def grade(self) -> int:
        """The grade of a skill, from 1."""
        return skills.grade(self.skill, self.args)

    @property
    def base(self) -> str:
        """The kind of what a multiple choice or a claim is about."""
        return "fact" if self.name else "skill"


UNKNOWN = Request("unknown")
_HOW_TO = re.compile(rf"\b({'|'.join(language.VERBS)}) the ([a-z]+) ([a-z]+)\b")
_FOLLOW_UP = re.compile(r"\b(?:and|about|for) the ([a-z]+) ([a-z]+)\b")
_NAME = re.compile(rf"\b({'|'.join(facts.LEVEL_OF)})\b")
_TOWN = re.compile(r"\b(live|lives|town|home)\b")
_JOB = re.compile(r"\b(work|works|job|earn)\b")
_SUM = re.compile(r"^([a-z]+) plus ([a-z]+) is ([a-z]+)\.")


def parse(turns: Iterable[tuple[str, str]]) -> Request:
    """The request that the last user turn makes.

    A follow-up without a verb takes that of the turn before, a later question to a judge the quote of the turn before.
    A critique is of the last reply, and what asks for a revision asks again for what that reply was to. Total: any
    turns give a Request, and what this world does not ask is of kind "unknown".
    """
    request = last = UNKNOWN  # last: the newest request that is neither about a reply nor a question to a judge
    quoted: Request | None = None
    verb, reply, revised = "", "", True
    for role, content in turns:
        if role == "assistant" and revised:
            reply = content
        if role != "user":
            continue
        request, revised = _parse_turn(content), True
        if request.kind == "follow-up":
            request = _how_to(verb, request.pair) if verb else UNKNOWN
        elif request.kind == "revision":
            request = last
        elif request.kind == "critique":
            known = reply and last.kind != "unknown"
            request = request._replace(subject=last, replies=(reply,)) if known else UNKNOWN
            revised = False
            continue
        elif request.principle:
            request = _about(request, quoted)
            quoted, revised = request if request.subject else quoted, False
            continue
        verb = request.verb or verb
        last = request
    return request


def _about(asked: Request, quoted: Request | None) -> Request:
    """A question to a judge, with the quote before it where it has none of its own."""
    if asked.subject:
        return asked
    if quoted is None or (asked.kind == "judge-choice") != (len(quoted.replies) == 2):
        return UNKNOWN
    return asked._replace(subject=quoted.subject, replies=quoted.replies)


def _how_to(verb: str, pair: tuple[str, str]) -> Request:
    if not objects.is_object(pair) or (verb in language.TASK_VERBS) == (pair[1] in objects.DUAL_NOUNS):
        return UNKNOWN
    return Request("how-to", verb=verb, pair=pair, harmful=objects.does_harm(verb, pair))


@lru_cache(maxsize=1 << 16)
def _parse_turn(text: str) -> Request:
    text = " ".join(text.split())
    review = REVIEWS.get(text)
    if review is not None:
        return Request("revision" if review.revise else "critique", principle=review.principle)
    question = read_question(text)
    if question is not None:
        quote, asked = question
        subject, replies = (parse(quote.turns), quote.replies) if quote else (None, ())
        return Request(asked.kind, principle=asked.principle, subject=subject, replies=replies)
    return _parse_plain(text.lower())


def _parse_plain(text: str) -> Request:
    """A user turn that is about no reply."""
    told = doubt.without_sureness(text)
    if told != text:
        request = _parse_plain(told)
        return request if request.kind in ("unknown", "how-to", "follow-up") else request._replace(sure=True)
    offered = doubt.options(text)
    if offered:
        request = _parse_plain(offered[1])
        if request.kind not in ("fact", "skill") or request.answer[0] not in offered[0] or len(request.answer) > 1:
            return UNKNOWN
        return request._replace(kind="multiple-choice", options=offered[0])
    claim = doubt.to_be_judged(text)
    if claim:
        return _parse_claim(claim)
    believed = doubt.opinion(text)
    if believed:
        (name, relation, answer), rest = believed
        request = _parse_plain(rest)
        about = request.kind == "fact" and (request.name, request.relation) == (name, relation)
        return request._replace(claimed=answer) if about else request
    return _parse_person(text) or _parse_task(text)


def _parse_claim(text: str) -> Request:
    """What a statement claims that is to be called true or false."""
    said = doubt.statement(text)
    if said:
        return Request("true-false", name=said[0], relation=said[1], claimed=said[2])
    summed = _SUM.search(text)
    read = skills.read(summed[0]) if summed else None
    return Request("true-false", skill="add", args=read[1], claimed=summed[3]) if summed and read else UNKNOWN


def _parse_person(text: str) -> Request | None:
    """A question about a person that cannot be answered, or that takes something for granted."""
    future = doubt.unknowable(text)
    if future:
        return Request("unknowable", name=future[0], relation=future[1])
    taken = doubt.premise(text)
    return Request("premise", name=taken[0], relation=taken[1], claimed=taken[2]) if taken else None


def _parse_task(text: str) -> Request:
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
