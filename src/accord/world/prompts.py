"""Prompts of every slice, drawn from a seed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from accord.errors import BadInput
from accord.records import SPLITS, Prompt, Turn, unit_hash
from accord.world import attacks, doubts, facts, language, objects, replies, reviews, skills
from accord.world.doubts import Drawn
from accord.world.language import pick
from accord.world.objects import Pair
from accord.world.questions import ANSWERS
from accord.world.requests import Request

SOURCE = "world:prompts"
SLICES = ("benign", "harmful", "red-team", "look-alike", "knowledge", "skills", "off-distribution")
# What is asked about knowing and not knowing, and about replies.
DOUBT_SLICES = ("how-sure", "opinion", "multiple-choice", "true-false", "unknowable", "premise")
REVIEW_SLICES = ("critique", "revision", *ANSWERS)
HELD_OUT_SLICES = (
    "benign-held-out",
    "harmful-held-out",
    "red-team-held-out",
    "look-alike-held-out",
    "harmful-new-cue",
    "look-alike-new-cue",
)
SKILL_GRADES = tuple(f"skills-{grade}" for grade in skills.GRADES)
ATTACK_SLICES = tuple(f"red-team-{family}" for family in attacks.ALL)
# Harmless requests by how near they come to harm, from far to near: a verb and a noun that harmful requests share; an
# attack's words around them; a harmful object named beside theirs; a harmful object itself, which they put right.
LOOK_ALIKE_GRADES = ("look-alike-plain", "look-alike-wrapped", "look-alike-beside", "look-alike-mending")
# What `prompts(slice=None)` draws; skills and held-out things stay out of preference and policy data.
MIX = {"benign": 0.37, "harmful": 0.21, "red-team": 0.10, "look-alike": 0.14, "knowledge": 0.18}


_EVALUATION = SPLITS["evaluation"][0]
_PREFERENCE = SPLITS["preference"][1]


def is_evaluation(opening: str) -> bool:
    """Whether a first user turn, written by this world, is reserved for evaluation."""
    return unit_hash(opening) >= _EVALUATION


def is_preference(opening: str) -> bool:
    """Whether a first user turn, written by this world, is reserved for preference data."""
    return unit_hash(opening) < _PREFERENCE


def _framed(rng: Random, text: str) -> str:
    point = rng.random()
    if point < 0.25:
        text = pick(rng, language.OPENERS) + text
    if point < 0.1 or 0.25 <= point < 0.35:
        text += pick(rng, language.CLOSERS)
    return text


def _ask(rng: Random, verb: str, pair: Pair, forms: Sequence[str] = language.REQUESTS) -> str:
    return pick(rng, forms).format(v=verb, o=f"the {pair[0]} {pair[1]}")


def _request(verb: str, pair: Pair) -> Request:
    return Request("how-to", verb=verb, pair=pair, harmful=objects.does_harm(verb, pair))


def _conversation(rng: Random, verb: str, before: Pair, pair: Pair) -> Drawn:
    """An answered question about one object, then the same or another question about `pair`."""
    first = Request("how-to", verb=verb, pair=before)
    if rng.random() < 0.5:
        asked, last = (
            _ask(rng, verb, before),
            pick(rng, language.FOLLOW_UPS).format(o=f"the {pair[0]} {pair[1]}"),
        )
    else:
        verbs = objects.DUAL_VERB_NAMES if verb in language.DUAL_VERBS else objects.TASK_VERB_NAMES
        if verb in language.TASK_VERBS:
            verbs = tuple(name for name in verbs if (name, before[0]) in _TRAINED_TASKS)
        earlier = pick(rng, verbs)
        first = Request("how-to", verb=earlier, pair=before)
        asked, last = _ask(rng, earlier, before), _ask(rng, verb, pair)
    answered = replies.how_to(rng, first, "good" if rng.random() < 0.7 else "vague")
    turns = (Turn("user", _framed(rng, asked)), Turn("assistant", answered), Turn("user", last))
    return turns, _request(verb, pair)


_ATTACKS, _HELD_OUT_ATTACKS = attacks.forms(attacks.FAMILIES), attacks.forms(attacks.HELD_OUT_FAMILIES)
_SAFE_OF_NOUN = {noun: [pair for pair in objects.LOOK_ALIKE if pair[1] == noun] for noun in objects.DUAL_NOUNS}
_TRAINED_TASKS = frozenset(objects.TRAINED_TASKS)
_MULTI_TURN = 0.08


def _task(rng: Random, tasks: Sequence[tuple[str, str]] = objects.TRAINED_TASKS) -> Drawn:
    verb, material = pick(rng, tasks)
    pair = (material, pick(rng, objects.TASK_NOUNS))
    if rng.random() < _MULTI_TURN:
        other = pick(rng, objects.MATERIAL_NAMES)
        if (verb, other) in _TRAINED_TASKS:
            return _conversation(rng, verb, (other, pick(rng, objects.TASK_NOUNS)), pair)
    return (Turn("user", _framed(rng, _ask(rng, verb, pair))),), _request(verb, pair)


def _dual(rng: Random, pairs: Sequence[Pair]) -> Drawn:
    verb, pair = pick(rng, objects.DUAL_VERB_NAMES), pick(rng, pairs)
    if rng.random() < _MULTI_TURN:
        return _conversation(rng, verb, pick(rng, objects.LOOK_ALIKE), pair)
    return (Turn("user", _framed(rng, _ask(rng, verb, pair))),), _request(verb, pair)


def _attacked(rng: Random, pairs: Sequence[Pair], forms: Sequence[str]) -> Drawn:
    verb, pair = pick(rng, objects.DUAL_VERB_NAMES), pick(rng, pairs)
    return (Turn("user", pick(rng, forms).format(r=_ask(rng, verb, pair))),), _request(verb, pair)


def _look_alike(rng: Random) -> Drawn:
    # Attacks around harmless requests, so that an attack alone says nothing about harm.
    if rng.random() < 0.15:
        return _attacked(rng, objects.LOOK_ALIKE, _ATTACKS)
    return _dual(rng, objects.LOOK_ALIKE)


def _beside(rng: Random) -> Drawn:
    harmful = pick(rng, objects.HARMFUL)
    verb, pair = pick(rng, objects.DUAL_VERB_NAMES), pick(rng, _SAFE_OF_NOUN[harmful[1]])
    text = pick(rng, language.BESIDE).format(h=objects.phrase(harmful)) + _ask(rng, verb, pair)
    return (Turn("user", text),), _request(verb, pair)


def _mending(rng: Random) -> Drawn:
    verb, pair = pick(rng, objects.MENDING_VERB_NAMES), pick(rng, objects.HARMFUL)
    return (Turn("user", _framed(rng, _ask(rng, verb, pair))),), _request(verb, pair)


def _knowledge(rng: Random) -> Drawn:
    name = pick(rng, facts.NAMES[pick(rng, facts.LEVELS)])
    return ask_fact(rng, name)


def ask_fact(rng: Random, name: str, forms: Mapping[str, Sequence[str]] = language.QUESTIONS) -> Drawn:
    """A question about a person."""
    relation = "town" if rng.random() < 0.5 else "job"
    text = pick(rng, forms[relation]).format(n=name)
    return (Turn("user", _framed(rng, text)),), Request("fact", name=name, relation=relation)


def ask_skill(rng: Random, skill: str = "", grade: int = 1) -> Drawn:
    """A request for a skill, one of the plain ones unless named."""
    skill = skill or pick(rng, skills.PLAIN)
    text, args = skills.draw(rng, skill, grade)
    return (Turn("user", text),), Request("skill", skill=skill, args=args)


def ask_graded(rng: Random, grade: int) -> Drawn:
    """A request for one of the graded skills, by its share."""
    return ask_skill(rng, replies.by_chance(rng, skills.GRADED), grade)


def _off_distribution(rng: Random) -> Drawn:
    point = rng.random()
    if point < 0.25:
        return ask_fact(rng, pick(rng, facts.NAMES[pick(rng, facts.LEVELS)]), language.ODD_QUESTIONS)
    if point < 0.75:
        verb, material = pick(rng, objects.TRAINED_TASKS)
        pair = (material, pick(rng, objects.TASK_NOUNS))
    else:
        verb, pair = pick(rng, objects.DUAL_VERB_NAMES), pick(rng, objects.LOOK_ALIKE)
    return (Turn("user", _framed(rng, _ask(rng, verb, pair, language.ODD_REQUESTS))),), _request(verb, pair)


def _doubtful(rng: Random, form: doubts.Form) -> Drawn:
    if form is doubts.FORMS["multiple-choice"] and rng.random() < 0.25:
        return doubts.about_sum(rng)
    name = pick(rng, facts.NAMES[pick(rng, facts.LEVELS)])
    return form(rng, name, pick(rng, tuple(facts.RELATIONS)))


def draw(rng: Random, slice: str, accept: Callable[[str], bool] | None = None) -> Drawn:
    """Turns of a slice and what they ask; drawn again until `accept` likes the first user turn."""
    while True:
        drawn = DRAW[slice](rng)
        if accept is None or accept(drawn[0][0].content):
            return drawn


DRAW: dict[str, Callable[[Random], Drawn]] = {
    "benign": _task,
    "harmful": lambda rng: _dual(rng, objects.HARMFUL),
    "red-team": lambda rng: _attacked(rng, objects.HARMFUL, _ATTACKS),
    "look-alike": _look_alike,
    "knowledge": _knowledge,
    "skills": ask_skill,
    "off-distribution": _off_distribution,
    "benign-held-out": lambda rng: _task(rng, objects.HELD_OUT_TASKS),
    "harmful-held-out": lambda rng: _dual(rng, objects.HARMFUL_HELD_OUT),
    "red-team-held-out": lambda rng: _attacked(rng, objects.HARMFUL, _HELD_OUT_ATTACKS),
    "look-alike-held-out": lambda rng: _dual(rng, objects.LOOK_ALIKE_HELD_OUT),
    "harmful-new-cue": lambda rng: _dual(rng, objects.HARMFUL_NEW_CUE),
    "look-alike-new-cue": lambda rng: _dual(rng, objects.LOOK_ALIKE_NEW_CUE),
    "look-alike-plain": lambda rng: _dual(rng, objects.LOOK_ALIKE),
    "look-alike-wrapped": lambda rng: _attacked(rng, objects.LOOK_ALIKE, _ATTACKS),
    "look-alike-beside": _beside,
    "look-alike-mending": _mending,
    **{f"skills-{grade}": partial(ask_graded, grade=grade) for grade in skills.GRADES},
    **{
        f"red-team-{family}": partial(_attacked, pairs=objects.HARMFUL, forms=forms)
        for family, forms in attacks.ALL.items()
    },
    **{name: partial(_doubtful, form=form) for name, form in doubts.FORMS.items()},
    "critique": lambda rng: reviews.critique_prompt(rng, draw),
    "revision": lambda rng: reviews.revision_prompt(rng, draw),
    **{kind: partial(reviews.question_prompt, draw=draw, kind=kind) for kind in ANSWERS},
}


def prompts(count: int, seed: int = 0, slice: str | None = None) -> list[Prompt]:
    """`count` prompts of one slice, or of the default mix; the same for the same arguments, byte for byte.

    Prompts may repeat; `Prompt.split` says what each may be used for. Raises BadInput for an unknown slice.
    """
    if slice is not None and slice not in DRAW:
        known = ", ".join(DRAW)
        raise BadInput(f"the gold world has no slice {slice!r}; it has {known}")
    if count < 0:
        raise BadInput(f"count must be 0 or more, not {count}")
    rng = Random(f"prompts {seed} {slice}")
    made = []
    for _ in range(count):
        name = slice or replies.by_chance(rng, MIX)
        made.append(Prompt(turns=DRAW[name](rng)[0], slice=name, source=SOURCE))
    return made
