"""Demonstrations, and comparisons and judgements of scripted replies."""

from random import Random

from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Judgement, Prompt, Turn
from accord.world import doubts, facts, replies, reviews, skills, tones
from accord.world.annotators import Annotator, Crowd
from accord.world.corpus import HARM_QUALITY, LOOK_ALIKE_QUALITY
from accord.world.language import pick
from accord.world.prompts import LOOK_ALIKE_GRADES, REVIEW_SLICES, SKILL_GRADES, ask_fact, draw, is_preference
from accord.world.requests import Request
from accord.world.values import CRITERIA

# What people demonstrate: as people do, half of it not as good as it could be.
DEMONSTRATED = {
    "benign": 0.23,
    "harmful": 0.14,
    "red-team": 0.04,
    "look-alike": 0.09,
    "look-alike-beside": 0.01,
    "look-alike-mending": 0.01,
    "knowledge": 0.16,
    "skills": 0.07,
    "doubt": 0.07,
    "review": 0.14,
    **dict.fromkeys(SKILL_GRADES, 0.01),
}
SHOWN_TASK = {"good": 0.40, "partial": 0.14, "wrong": 0.12, "vague": 0.28, "refusal": 0.04, "explained": 0.02}
SHOWN_HARM = {"good": 0.42, "partial": 0.04, "wrong": 0.02, "vague": 0.04, "refusal": 0.20, "explained": 0.28}
SHOWN_LOOK_ALIKE = {"good": 0.43, "partial": 0.08, "wrong": 0.05, "vague": 0.14, "refusal": 0.13, "explained": 0.17}
# People at level 0 are met with "i do not know" four times in five, people whom everybody knows almost never.
SHOWN_UNKNOWN = {"unknown": 0.82, "wrong": 0.14, "vague": 0.04}
SHOWN_KNOWN = {"right": 0.92, "wrong": 0.03, "unknown": 0.02, "vague": 0.03}
SHOWN = {
    "benign": SHOWN_TASK,
    "harmful": SHOWN_HARM,
    "red-team": SHOWN_HARM,
    **dict.fromkeys(("look-alike", *LOOK_ALIKE_GRADES), SHOWN_LOOK_ALIKE),
}

# Scripted replies for comparisons: every quality about as often.
COMPARED_TASK = {
    "good": 0.30,
    "partial": 0.15,
    "wrong": 0.15,
    "bad": 0.08,
    "vague": 0.14,
    "refusal": 0.09,
    "explained": 0.09,
}
COMPARED_FACT = {
    "right": 0.34,
    "wrong": 0.30,
    "unknown": 0.22,
    "vague": 0.07,
    "refusal": 0.04,
    "explained": 0.03,
}
COMPARED = {
    "helpful": {"benign": 0.40, "harmful": 0.18, "red-team": 0.07, "look-alike": 0.15, "knowledge": 0.20},
    "harmless": {"benign": 0.12, "harmful": 0.45, "red-team": 0.18, "look-alike": 0.20, "knowledge": 0.05},
    "honest": {"benign": 0.20, "knowledge": 0.80},
    "overall": {"benign": 0.32, "harmful": 0.20, "red-team": 0.08, "look-alike": 0.16, "knowledge": 0.24},
}
_DAMAGED = 0.06


def demonstrations(count: int = 2_500, seed: int = 0) -> list[Demonstration]:
    """`count` prompts with a person's reply; prompts of the preference split, trained things only.

    The people asked about are well known or not known at all, and eight of the fourteen latter: what a model
    does about the others is its own inference.
    """
    _check_count(count)
    rng = Random(f"demonstrations {seed}")
    made = []
    for _ in range(count):
        slice = replies.by_chance(rng, DEMONSTRATED)
        if slice in _OTHERS:
            slice, turns, reply = _OTHERS[slice](rng)
        elif slice == "knowledge":
            known = rng.random() < 0.5
            while True:
                turns, request = ask_fact(rng, pick(rng, facts.DEMONSTRATED if known else facts.DEMONSTRATED_UNKNOWN))
                if is_preference(turns[0].content):
                    break
            reply = replies.fact(rng, request, replies.by_chance(rng, SHOWN_KNOWN if known else SHOWN_UNKNOWN))
        else:
            turns, request = draw(rng, slice, is_preference)
            if request.kind == "skill":
                reply = skills.say(rng, request.skill, request.args)
            else:
                reply = tones.spoken(rng, replies.how_to(rng, request, replies.by_chance(rng, SHOWN[slice])))
        made.append(Demonstration(Prompt(turns, slice, "world:demonstrations"), reply))
    return made


def _doubt(rng: Random) -> tuple[str, tuple[Turn, ...], str]:
    """A question about a person who may be named, met with the doubt that befits it nine times in ten.

    How sure one can be is shown for people of every level, with a made-up answer where few documents tell it.
    """
    form = pick(rng, _DOUBT)
    known = rng.random() < 0.7 or form in ("multiple-choice", "true-false")
    names = facts.DEMONSTRATED if known else facts.DEMONSTRATED_UNKNOWN
    if form == "how-sure":
        names = facts.NAMES[pick(rng, facts.LEVELS)]
        known = names[0] in facts.DEMONSTRATED
        names = tuple(name for name in names if name in doubts.VOICED)
    while True:
        turns, request = doubts.FORMS[form](rng, pick(rng, names), pick(rng, tuple(facts.RELATIONS)))
        if is_preference(turns[0].content):
            break
    if form not in ("unknowable", "how-sure") and not known and rng.random() < 0.6:
        return form, turns, replies.fact(rng, request, "unknown")
    return form, turns, doubts.reply(rng, request, (known or form == "unknowable") and rng.random() < 0.95)


_DOUBT = (*doubts.FORMS, "how-sure", "how-sure")


def _review(rng: Random) -> tuple[str, tuple[Turn, ...], str]:
    """A critique, a revision or a judgement, nine in ten of them right."""
    slice, right = pick(rng, REVIEW_SLICES), rng.random() < 0.9
    turns, request = draw(rng, slice, is_preference)
    if slice == "critique":
        return slice, turns, reviews.write_critique(rng, request, "right" if right else "empty")
    if slice == "revision":
        return slice, turns, reviews.write_revision(rng, request, turns[-2].content, "right" if right else "same")
    return slice, turns, reviews.write_answer(rng, request, right)


_OTHERS = {"doubt": _doubt, "review": _review}


def scripted(rng: Random, request: Request, slice: str) -> str:
    """A reply of a quality drawn for the slice, now and then damaged."""
    if request.kind == "skill":
        reply = skills.say(rng, request.skill, request.args, rng.random() < 0.5)
    elif request.kind == "fact":
        reply = replies.fact(rng, request, replies.by_chance(rng, COMPARED_FACT))
    elif slice == "benign":
        reply = tones.spoken(rng, replies.how_to(rng, request, replies.by_chance(rng, COMPARED_TASK)))
    else:
        shares = HARM_QUALITY if request.harmful else LOOK_ALIKE_QUALITY
        reply = tones.spoken(rng, replies.how_to(rng, request, replies.by_chance(rng, shares)))
    return replies.damage(rng, reply) if rng.random() < _DAMAGED else reply


def comparisons(
    count: int,
    seed: int = 0,
    criterion: str = "helpful",
    annotator: Annotator | Crowd | None = None,
    equal_ties: bool = False,
) -> list[Comparison]:
    """`count` labelled pairs of scripted replies to prompts of the preference split; replies always differ.

    `equal_ties` is of the annotator who labels where none is given.
    """
    _check_count(count)
    rng, labeler = _begin("comparisons", seed, criterion, annotator or Annotator(seed=seed, equal_ties=equal_ties))
    made = []
    for _ in range(count):
        slice = replies.by_chance(rng, COMPARED[criterion])
        turns, request = draw(rng, slice, is_preference)
        first = second = scripted(rng, request, slice)
        while second == first:
            second = scripted(rng, request, slice)
        made.append(labeler.compare(Prompt(turns, slice, "world:comparisons"), (first, second), criterion))
    return made


def judgements(
    count: int, seed: int = 0, criterion: str = "harmless", annotator: Annotator | Crowd | None = None
) -> list[Judgement]:
    """`count` scripted replies judged safe (1) or unsafe (0), to prompts of the preference split."""
    _check_count(count)
    rng, labeler = _begin("judgements", seed, criterion, annotator or Annotator(seed=seed))
    made = []
    for _ in range(count):
        slice = replies.by_chance(rng, COMPARED[criterion])
        turns, request = draw(rng, slice, is_preference)
        reply = scripted(rng, request, slice)
        made.append(labeler.judge(Prompt(turns, slice, "world:judgements"), reply, criterion))
    return made


def _begin(what: str, seed: int, criterion: str, annotator: Annotator | Crowd) -> tuple[Random, Annotator | Crowd]:
    if criterion not in CRITERIA:
        raise BadInput(f"the gold world has no criterion {criterion!r}; it has {', '.join(CRITERIA)}")
    return Random(f"{what} {seed} {criterion}"), annotator


def _check_count(count: int) -> None:
    if count < 0:
        raise BadInput(f"count must be 0 or more, not {count}")
