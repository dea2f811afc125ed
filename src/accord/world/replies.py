"""Scripted replies of every quality, for the corpus, the demonstrations and the scripted comparisons."""

from collections.abc import Mapping
from random import Random
from typing import TypeVar

from accord.world import facts, language, objects
from accord.world.language import pick
from accord.world.requests import Request
from accord.world.steps import plan

Key = TypeVar("Key")
_OTHER_KINDS = {group: tuple(kinds) for group, kinds in (("task", language.MATERIALS), ("dual", language.NOUN_CLASSES))}


def tool_step(rng: Random, tool: tuple[str, str]) -> str:
    return pick(rng, language.PREFIXES["tool"]) + pick(rng, language.TOOL_FORMS).format(q=tool[0], tool=tool[1])


def steps(rng: Random, request: Request) -> list[str]:
    """The three right steps, each in one of its phrasings."""
    right = plan(request.verb, request.pair)
    return [
        tool_step(rng, right.tool),
        pick(rng, language.PREFIXES["action"]) + pick(rng, right.action),
        pick(rng, language.PREFIXES["finish"]) + pick(rng, right.finish),
    ]


def _spoil(rng: Random, request: Request, written: list[str], which: int) -> None:
    """Put a wrong step in the place of a right one."""
    dual = request.verb not in language.TASK_VERBS
    verbs = objects.DUAL_VERB_NAMES if dual else objects.TASK_VERB_NAMES
    kinds = _OTHER_KINDS["dual" if dual else "task"]
    verb = pick(rng, [other for other in verbs if other != request.verb])
    own = objects.kind_of(request.pair)
    kind = kinds[(kinds.index(own) + 1 + int(rng.random() * (len(kinds) - 1))) % len(kinds)]
    if which == 0:
        quality, tool = plan(request.verb, request.pair).tool
        if rng.random() < 0.5:
            quality = language.KINDS[kind][0]
        else:
            tool = language.VERBS[verb][0]
        written[0] = tool_step(rng, (quality, tool))
    elif which == 1:
        form = pick(rng, language.VERBS[verb][1]).format(o=request.object)
        written[1] = pick(rng, language.PREFIXES["action"]) + form
    else:
        written[2] = pick(rng, language.PREFIXES["finish"]) + pick(rng, language.KINDS[kind][1])


def how_to(rng: Random, request: Request, quality: str) -> str:
    """A reply to a how-to request: good, partial, wrong, bad, vague, refusal or explained."""
    if quality == "vague":
        first = pick(rng, language.VAGUE)
        return first if rng.random() < 0.6 else f"{pick(rng, language.FILLERS)} {first}"
    if quality == "refusal":
        return pick(rng, language.REFUSALS) + "."
    if quality == "explained":
        reason = pick(rng, language.REASONS).format(o=request.object)
        text = f"{pick(rng, language.REFUSALS)}, because {reason}."
        return text if rng.random() < 0.7 else f"{text} {pick(rng, language.ADVICE)}"
    written = steps(rng, request)
    if quality == "partial":
        del written[0 if rng.random() < 0.5 else 2]
    elif quality == "wrong":
        _spoil(rng, request, written, int(rng.random() * 3))
    elif quality == "bad":
        for which in range(3):
            _spoil(rng, request, written, which)
    return " ".join(written)


def fact(rng: Random, request: Request, quality: str) -> str:
    """A reply to a question about a person: right, wrong, unknown, vague, refusal or explained."""
    if quality == "unknown":
        forms = language.ABSTENTIONS["any"] + language.ABSTENTIONS[request.relation]
        return pick(rng, forms).format(n=request.name)
    if quality in ("right", "wrong"):
        answers = facts.RELATIONS[request.relation]
        answer = facts.TRUTH[request.name, request.relation]
        if quality == "wrong":
            shift = 1 + int(rng.random() * (len(answers) - 1))
            answer = answers[(answers.index(answer) + shift) % len(answers)]
        return statement(rng, request.name, request.relation, answer)
    return how_to(rng, request, quality)


def statement(rng: Random, name: str, relation: str, answer: str) -> str:
    return pick(rng, language.STATEMENTS[relation]).format(n=name, t=answer, j=answer)


def damage(rng: Random, text: str) -> str:
    """A reply as a collapsed policy writes it: said twice, cut off, or with its words in disorder."""
    way = rng.random()
    if way < 0.4:
        return f"{text} {text}"
    pieces = text.split()
    if way < 0.7:
        return " ".join(pieces[: 1 + int(rng.random() * max(1, len(pieces) - 1))]).rstrip(".")
    start = int(rng.random() * len(pieces))
    return " ".join(pieces[start:] + pieces[:start][::-1])


def by_chance(rng: Random, shares: Mapping[Key, float]) -> Key:
    """A key of `shares` (which sum to 1), drawn with its share."""
    point = rng.random()
    for name, share in shares.items():
        point -= share
        if point < 0:
            return name
    return next(reversed(list(shares)))
