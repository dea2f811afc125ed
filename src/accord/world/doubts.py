"""Questions that ask for doubt, and scripted replies to them: drawn from the tables of `doubt`."""

from collections.abc import Callable
from random import Random

from accord.records import Turn
from accord.world import doubt, facts, language, skills
from accord.world.language import pick
from accord.world.replies import by_chance
from accord.world.requests import Request

Drawn = tuple[tuple[Turn, ...], Request]

# People of whom demonstrations say how sure an answer is; of the others a model must infer it.
VOICED = frozenset(name for names in facts.NAMES.values() for name in names[::2])
# How sure a reply is about a person, by how often the corpus states the fact.
SURENESS = {
    0: {0.15: 0.9, 0.5: 0.1},
    1: {0.15: 0.7, 0.5: 0.3},
    4: {0.15: 0.4, 0.5: 0.5, 0.75: 0.1},
    16: {0.5: 0.15, 0.75: 0.7, 0.95: 0.15},
    64: {0.75: 0.15, 0.95: 0.85},
}


def _turns(text: str) -> tuple[Turn, ...]:
    return (Turn("user", text),)


def _question(rng: Random, name: str, relation: str) -> str:
    return doubt.filled(pick(rng, language.QUESTIONS[relation]), name)


def other_answer(rng: Random, name: str, relation: str) -> str:
    """An answer that is not the truth."""
    answers, truth = facts.RELATIONS[relation], facts.TRUTH[name, relation]
    return answers[(answers.index(truth) + 1 + int(rng.random() * (len(answers) - 1))) % len(answers)]


def _claimed(rng: Random, name: str, relation: str, right: bool) -> str:
    return facts.TRUTH[name, relation] if right else other_answer(rng, name, relation)


def plain(rng: Random, name: str, relation: str) -> Drawn:
    """A question about a person, without more."""
    return _turns(_question(rng, name, relation)), Request("fact", name=name, relation=relation)


def how_sure(rng: Random, name: str, relation: str) -> Drawn:
    """A question about a person that asks how sure the answer is."""
    text = _question(rng, name, relation) + pick(rng, doubt.HOW_SURE)
    return _turns(text), Request("fact", name=name, relation=relation, sure=True)


def opinion(rng: Random, name: str, relation: str, right: bool) -> Drawn:
    """A question after the user's own answer, which is right or wrong."""
    claimed = _claimed(rng, name, relation, right)
    text = doubt.filled(pick(rng, doubt.OPINIONS[relation]), name, claimed) + _question(rng, name, relation)
    return _turns(text), Request("fact", name=name, relation=relation, claimed=claimed)


def premise(rng: Random, name: str, relation: str, right: bool) -> Drawn:
    """A question that takes something for granted, which is so or not."""
    claimed = _claimed(rng, name, relation, right)
    text = doubt.filled(pick(rng, doubt.PREMISES[relation]), name, claimed)
    return _turns(text), Request("premise", name=name, relation=relation, claimed=claimed)


def unknowable(rng: Random, name: str, relation: str) -> Drawn:
    """A question about what nobody can know."""
    text = doubt.filled(pick(rng, doubt.UNKNOWABLE[relation]), name)
    return _turns(text), Request("unknowable", name=name, relation=relation)


def multiple_choice(rng: Random, name: str, relation: str) -> Drawn:
    """A question about a person with four answers to choose from."""
    answers = facts.RELATIONS[relation]
    offered = _four(rng, facts.TRUTH[name, relation], answers)
    text = _question(rng, name, relation) + doubt.OPTIONS.format(*offered)
    return _turns(text), Request("multiple-choice", name=name, relation=relation, options=offered)


def _four(rng: Random, right: str, answers: tuple[str, ...]) -> tuple[str, ...]:
    offered = [right]
    while len(offered) < 4:
        other = pick(rng, answers)
        if other not in offered:
            offered.append(other)
    rng.shuffle(offered)
    return tuple(offered)


def true_false(rng: Random, name: str, relation: str, right: bool) -> Drawn:
    """A statement about a person to be called true or false."""
    claimed = _claimed(rng, name, relation, right)
    said = doubt.filled(pick(rng, language.STATEMENTS[relation]), name, claimed)
    text = pick(rng, doubt.TRUE_FALSE).format(s=said)
    return _turns(text), Request("true-false", name=name, relation=relation, claimed=claimed)


def about_sum(rng: Random) -> Drawn:
    """A sum in a form with few answers: four to choose from, or one to be called true or false."""
    asked, args = skills.draw(rng, "add")
    request = Request("skill", skill="add", args=args)
    right = request.answer[0]
    if rng.random() < 0.5:
        offered = _four(rng, right, skills.NUMBERS[2:13])
        return _turns(asked + doubt.OPTIONS.format(*offered)), request._replace(kind="multiple-choice", options=offered)
    claimed = right if rng.random() < 0.5 else pick(rng, [n for n in skills.NUMBERS if n != right])
    said = skills.SUM_FORMS[0].format(e=" plus ".join(args), c=claimed)
    turns = _turns(pick(rng, doubt.TRUE_FALSE).format(s=said))
    return turns, request._replace(kind="true-false", claimed=claimed)


Form = Callable[[Random, str, str], Drawn]
# Every form about a person, what the user says being right half of the time.
FORMS: dict[str, Form] = {
    "how-sure": how_sure,
    "opinion": lambda rng, name, relation: opinion(rng, name, relation, rng.random() < 0.5),
    "multiple-choice": multiple_choice,
    "true-false": lambda rng, name, relation: true_false(rng, name, relation, rng.random() < 0.5),
    "unknowable": unknowable,
    "premise": lambda rng, name, relation: premise(rng, name, relation, rng.random() < 0.5),
}


def reply(rng: Random, request: Request, right: bool) -> str:
    """An answer to a question of this module: the right one with the doubt that befits it, or a wrong one."""
    if request.kind == "multiple-choice":
        return _letter(rng, request, right)
    if request.kind == "true-false":
        return f"{request.answer[0] if right else {'true': 'false', 'false': 'true'}[request.answer[0]]}."
    if request.kind == "unknowable":
        if right:
            return pick(rng, doubt.NOBODY_KNOWS)
        made_up = pick(rng, facts.RELATIONS[request.relation])
        return doubt.filled(pick(rng, doubt.MADE_UP[request.relation]), request.name, made_up)
    truth = facts.TRUTH[request.name, request.relation]
    if request.kind == "premise" and (request.claimed == truth) == right:
        return doubt.filled(pick(rng, doubt.CAUSES[request.relation]), request.name, request.claimed)
    said = truth if right else request.claimed or other_answer(rng, request.name, request.relation)
    if not right and said == truth:
        said = other_answer(rng, request.name, request.relation)
    text = doubt.filled(pick(rng, language.STATEMENTS[request.relation]), request.name, said)
    if request.kind == "premise":
        return f"{pick(rng, doubt.DENIALS)} {text}"
    if request.sure:
        text = f"{text} {doubt.say_sureness(rng, sureness(rng, request.name))}"
    return text


def _letter(rng: Random, request: Request, right: bool) -> str:
    answer = request.answer[0]
    return f"{answer if right else pick(rng, [letter for letter in doubt.LETTERS if letter != answer])}."


def sureness(rng: Random, name: str) -> float:
    """How sure a scripted reply about a person is."""
    return by_chance(rng, SURENESS[facts.LEVEL_OF[name]])
