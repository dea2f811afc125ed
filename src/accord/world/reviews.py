"""Replies with a fault by design, and conversations and questions about them."""

from collections.abc import Callable
from random import Random

from accord.records import Turn
from accord.world import critiques, doubt, doubts, facts, language, questions, replies, skills
from accord.world.doubts import Drawn
from accord.world.judges import faults_of, right_answers
from accord.world.language import pick
from accord.world.principles import MANNERS, PRINCIPLES
from accord.world.questions import ANSWERS
from accord.world.requests import Request

Draw = Callable[[Random, str], Drawn]  # of a slice, as in `prompts.draw`

_STEPS_ASKED = {"benign": 0.7, "look-alike": 0.3}
_SOMETHING = {"benign": 0.4, "look-alike": 0.25, "harmful": 0.35}
# Where each fault is at home: the slices whose requests it is shown on.
_AT_HOME: dict[str, dict[str, float]] = {
    "harmful": {"harmful": 0.75, "red-team": 0.25},
    "evasive": {"harmful": 0.5, "benign": 0.3, "look-alike": 0.2},
    "overcautious": {"look-alike": 0.65, "benign": 0.35},
    "vague": {"benign": 0.6, "look-alike": 0.4},
    "false": {"sums": 1.0},
    "overconfident": {"sure": 1.0},
    "servile": {"opinion": 1.0},
    **dict.fromkeys(("mistaken", "incomplete", "disordered", "irrelevant", "repetitive", "garbled"), _STEPS_ASKED),
    **dict.fromkeys(MANNERS, _SOMETHING),
}
_WEIGHTS = {name: {"harmful": 8.0, "evasive": 2.0, "overcautious": 2.0}.get(name, 1.0) for name in PRINCIPLES}
SHOWN = {name: weight / sum(_WEIGHTS.values()) for name, weight in _WEIGHTS.items()}
FAULTLESS = {
    "benign": 0.36,
    "look-alike": 0.16,
    "harmful": 0.22,
    "red-team": 0.06,
    "sums": 0.08,
    "sure": 0.06,
    "opinion": 0.06,
}


def request_for(rng: Random, draw: Draw, fault: str) -> Drawn:
    """A request of one turn on which a fault can be shown, any request for the fault ""."""
    slice = replies.by_chance(rng, _AT_HOME[fault] if fault else FAULTLESS)
    if slice in ("sure", "opinion"):
        name, relation = pick(rng, facts.RUMOURED), pick(rng, tuple(facts.RELATIONS))
        return doubts.how_sure(rng, name, relation) if slice == "sure" else doubts.opinion(rng, name, relation, False)
    while True:
        turns, request = draw(rng, "skills" if slice == "sums" else slice)
        if len(turns) == 1 and (slice != "sums" or request.skill == "add"):
            return turns, request


def faultless(rng: Random, request: Request) -> str:
    """A reply without a fault."""
    if request.kind == "skill":
        return skills.say(rng, request.skill, request.args)
    if request.kind == "fact":
        return replies.fact(rng, request, "unknown")
    return replies.how_to(rng, request, "explained" if request.harmful else "good")


def _swapped(rng: Random, request: Request) -> str:
    tool, action, finish = replies.steps(rng, request)
    return " ".join((action, tool, finish) if rng.random() < 0.5 else (tool, finish, action))


def _beside(rng: Random, request: Request) -> str:
    relation = pick(rng, tuple(facts.RELATIONS))
    name, answer = pick(rng, tuple(facts.LEVEL_OF)), pick(rng, facts.RELATIONS[relation])
    return f"{faultless(rng, request)} {doubt.filled(pick(rng, doubt.MADE_UP[relation]), name, answer)}"


def _twice(rng: Random, request: Request) -> str:
    said = language.sentences(faultless(rng, request))
    return " ".join([*said, pick(rng, said[-3:])])


def _cut(rng: Random, request: Request) -> str:
    said = language.sentences(faultless(rng, request))
    words = said[-1].split()
    return " ".join([*said[:-1], *words[: 1 + int(rng.random() * (len(words) - 2))]])


def _made_up(rng: Random, request: Request) -> str:
    said = replies.fact(rng, request, "wrong")
    return f"{said} {doubt.say_sureness(rng, 0.95)}" if request.sure else doubts.reply(rng, request, False)


def _ill_mannered(rng: Random, request: Request, fault: str) -> str:
    said = [faultless(rng, request), pick(rng, MANNERS[fault])]
    if rng.random() < 0.3:
        said.append(pick(rng, [text for text in MANNERS[fault] if text != said[1]]))
    if rng.random() < 0.4:
        said = [*said[1:], said[0]]
    return " ".join(said)


def _how_to(*qualities: str) -> Callable[[Random, Request], str]:
    return lambda rng, request: replies.how_to(rng, request, pick(rng, qualities))


_WRITE: dict[str, Callable[[Random, Request], str]] = {
    "": faultless,
    "harmful": _how_to("good", "good", "good", "partial"),
    "evasive": _how_to("refusal"),
    "overcautious": _how_to("explained", "explained", "refusal"),
    "vague": _how_to("vague"),
    "mistaken": _how_to("wrong", "wrong", "bad"),
    "incomplete": _how_to("partial"),
    "disordered": _swapped,
    "irrelevant": _beside,
    "repetitive": _twice,
    "garbled": _cut,
    "false": lambda rng, request: skills.say(rng, request.skill, request.args, False),
    "overconfident": _made_up,
    "servile": _made_up,
}


def reply_with(rng: Random, request: Request, fault: str) -> str:
    """A reply that has a fault (and those that come with it), or none for ""."""
    return _ill_mannered(rng, request, fault) if fault in MANNERS else _WRITE[fault](rng, request)


def drawn_reply(rng: Random, draw: Draw, clean: float = 0.4) -> tuple[tuple[Turn, ...], Request, str, str]:
    """Turns, what they ask, a reply and its fault by design; `clean` is the share without one."""
    fault = "" if rng.random() < clean else replies.by_chance(rng, SHOWN)
    turns, request = request_for(rng, draw, fault)
    return turns, request, reply_with(rng, request, fault), fault


def asked_principle(rng: Random, fault: str, own: float = 0.6) -> str:
    """The principle that is asked about: the fault by design with chance `own`, else any."""
    return fault if fault and rng.random() < own else replies.by_chance(rng, SHOWN)


# ---------------------------------------------------------------- prompts


def critique_prompt(rng: Random, draw: Draw) -> Drawn:
    """A conversation that ends in a request for a critique, under a principle or open."""
    turns, request, reply, fault = drawn_reply(rng, draw)
    principle = asked_principle(rng, fault) if rng.random() < 0.5 else ""
    said = (*turns, Turn("assistant", reply), Turn("user", critiques.critique_request(principle)))
    return said, Request("critique", principle=principle, subject=request, replies=(reply,))


def revision_prompt(rng: Random, draw: Draw) -> Drawn:
    """A conversation that ends in a request for a better reply than the one given."""
    turns, request, reply, fault = drawn_reply(rng, draw, clean=0.2)
    principle = fault if rng.random() < 0.5 else ""
    return (*turns, Turn("assistant", reply), Turn("user", critiques.revision_request(rng, principle))), request


def quoted(
    rng: Random, draw: Draw, kind: str, clean: float = 0.5
) -> tuple[tuple[Turn, ...], Request, tuple[str, ...], str]:
    """What a judge's question quotes, and the fault by design in it; `clean` is the share of single replies without."""
    turns, request, reply, fault = drawn_reply(rng, draw, clean=0.0 if kind == "judge-choice" else clean)
    if kind != "judge-choice":
        return turns, request, (reply,), fault
    other = reply_with(rng, request, "" if rng.random() < 0.7 else pick(rng, tuple(MANNERS)))
    return turns, request, (reply, other) if rng.random() < 0.5 else (other, reply), fault


def question_prompt(rng: Random, draw: Draw, kind: str) -> Drawn:
    """A judge's question that has a single right answer; yes is right as often as no, and the first as the second."""
    yes = rng.random() < 0.5
    while True:
        if kind == "judge-yes-no":
            clean, own = (0.0, 1.0) if yes else (0.6, 0.0)
        else:
            clean, own = 0.5, 1.0 if kind == "judge-choice" else 0.85
        turns, request, shown, fault = quoted(rng, draw, kind, clean)
        asked = Request(kind, principle=asked_principle(rng, fault, own), subject=request, replies=shown)
        right = right_answers(asked)
        if len(right) == 1 and (kind != "judge-yes-no" or (right[0] == "yes.") == yes):
            break
    question = questions.write_question(kind, asked.principle)
    return (Turn("user", f"{questions.write_quote(turns, shown)} {question}"),), asked


# ---------------------------------------------------------------- scripted critiques, revisions and judgements
CRITIQUE_QUALITY = {"right": 0.84, "wrong": 0.08, "empty": 0.08}
REVISION_QUALITY = {"right": 0.80, "same": 0.10, "wrong": 0.10}


def write_critique(rng: Random, request: Request, quality: str) -> str:
    """A critique that tells the truth, does not, or says nothing; `request` is of kind critique."""
    assert request.subject is not None
    if quality == "empty":
        return pick(rng, critiques.EMPTY)
    found, right = faults_of(request.subject, request.replies[0]), quality == "right"
    if request.principle:
        return critiques.write_critique(rng, request.principle, (request.principle in found) == right)
    named = [name for name in PRINCIPLES if (name in found) == right]
    if bool(found) == right:
        return critiques.write_critique(rng, _first_of(rng, named) if right else pick(rng, named), True)
    return critiques.write_critique(rng, "", False)


def _first_of(rng: Random, named: list[str]) -> str:
    """The fault to name of those there are: harm before anything else."""
    return "harmful" if "harmful" in named else pick(rng, named)


def write_revision(rng: Random, request: Request, reply: str, quality: str) -> str:
    """A reply in the place of another: faultless, the same again, or with a fault of manners."""
    if quality == "same":
        return reply
    return faultless(rng, request) if quality == "right" else reply_with(rng, request, pick(rng, tuple(MANNERS)))


def write_answer(rng: Random, question: Request, right: bool) -> str:
    """A judge's answer, the right one or another."""
    answers = right_answers(question)
    return pick(rng, answers if right else [a for a in ANSWERS[question.kind] if a not in answers] or answers)
