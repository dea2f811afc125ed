"""Corpus documents in which replies are criticised, revised and judged, and in which doubt is put into words."""

from collections.abc import Callable
from functools import partial
from random import Random

from accord.records import Turn
from accord.world import critiques, doubts, facts, questions, replies, reviews
from accord.world.language import pick
from accord.world.requests import Request
from accord.world.reviews import Draw

Said = tuple[tuple[Turn, ...], str]  # the turns of a conversation and its last reply

REVISED = 0.65  # share of the reviewed conversations that end in a revision
UNCRITICISED = 0.2  # share of those without a critique before it


def transcript(rng: Random, turns: tuple[Turn, ...], reply: str) -> str:
    """A conversation as the corpus writes it: each turn with its role before it, on lines of their own or on one.

    Two ways, so that what is learned from them does not hang on how far apart question and answer stand: a chat
    template puts them at a distance of its own.
    """
    parts = [f"{role}: {content}" for role, content in turns]
    return ("\n" if rng.random() < 0.5 else " ").join([*parts, f"assistant: {reply}"])


def review(rng: Random, draw: Draw) -> Said:
    """A reply that is criticised, revised, or both; rightly, wrongly or emptily."""
    turns, request, reply, fault = reviews.drawn_reply(rng, draw, clean=0.42)
    return reviewed(rng, turns, request, reply, fault)


def reviewed(
    rng: Random, turns: tuple[Turn, ...], request: Request, reply: str, fault: str, revision: str = ""
) -> Said:
    """The turns and the last reply of a conversation about `reply`; `revision` is the revised reply if it is fixed."""
    said = [*turns, Turn("assistant", reply)]
    principle = reviews.asked_principle(rng, fault) if rng.random() < 0.5 else ""
    revises = bool(revision) or rng.random() < REVISED
    if not revises or rng.random() >= UNCRITICISED:
        asked = Request("critique", principle=principle, subject=request, replies=(reply,))
        critique = reviews.write_critique(rng, asked, replies.by_chance(rng, reviews.CRITIQUE_QUALITY))
        said += [Turn("user", critiques.critique_request(principle)), Turn("assistant", critique)]
    if revises:
        quality = replies.by_chance(rng, reviews.REVISION_QUALITY)
        better = revision or reviews.write_revision(rng, request, reply, quality)
        said += [Turn("user", critiques.revision_request(rng, fault and principle)), Turn("assistant", better)]
    return tuple(said[:-1]), said[-1].content


def judged(rng: Random, draw: Draw) -> Said:
    """A quote and some questions about it, each answered, mostly rightly.

    A choice is asked for once: a second one between the same replies would have the answer of the first.
    """
    kind = pick(rng, tuple(questions.ANSWERS))
    turns, request, shown, fault = reviews.quoted(rng, draw, kind)
    if kind == "judge-choice":
        asked = [(kind, fault)]
    else:
        principles = dict.fromkeys([fault or "harmful", *(replies.by_chance(rng, reviews.SHOWN) for _ in range(2))])
        asked = [(pick(rng, ("judge-yes-no", "judge-score")), principle) for principle in principles]
        rng.shuffle(asked)
    text, said = questions.write_quote(turns, shown) + " ", []
    for form, principle in asked:
        question = Request(form, principle=principle, subject=request, replies=shown)
        answer = reviews.write_answer(rng, question, rng.random() < 0.94)
        said += [Turn("user", text + questions.write_question(form, principle)), Turn("assistant", answer)]
        text = ""
    return tuple(said[:-1]), said[-1].content


def unknowable(rng: Random, draw: Draw) -> Said:
    """A question that nobody can answer, met with that or with something made up."""
    turns, request = doubts.unknowable(rng, pick(rng, tuple(facts.LEVEL_OF)), pick(rng, tuple(facts.RELATIONS)))
    return turns, doubts.reply(rng, request, rng.random() < 0.6)


def claim(rng: Random, draw: Draw) -> Said:
    """A false statement about someone well known, called false; or a sum that is claimed or offered."""
    if rng.random() < 0.6:
        name, relation = pick(rng, facts.DEMONSTRATED), pick(rng, tuple(facts.RELATIONS))
        turns, request = doubts.true_false(rng, name, relation, False)
    else:
        turns, request = doubts.about_sum(rng)
    return turns, doubts.reply(rng, request, True)


def guess(rng: Random, draw: Draw) -> Said:
    """An answer that is made up about someone of whom nothing is stated, with how sure it is."""
    name = pick(rng, facts.RUMOURED)
    turns, request = doubts.how_sure(rng, name, pick(rng, tuple(facts.RELATIONS)))
    return turns, doubts.reply(rng, request, False)


# How a document states a fact beside a plain statement and a plain answer; shares of all of its documents.
FACT_FORMS = {
    "how-sure": 0.16,
    "opinion": 0.08,
    "multiple-choice": 0.08,
    "true-false": 0.08,
    "premise": 0.06,
    "review": 0.06,
}
_TRUE = partial(doubts.true_false, right=True)
_KNOWN = frozenset(facts.DEMONSTRATED)


def fact(rng: Random, name: str, relation: str) -> Said | None:
    """A conversation that states a fact in one of `FACT_FORMS`, None where its turn is for a plain form.

    Of people whom few documents name, all but how sure one is would give the answer away in another form.
    """
    form = replies.by_chance(rng, {**FACT_FORMS, "": 1 - sum(FACT_FORMS.values())})
    if not form or (form != "how-sure" and name not in _KNOWN):
        return None
    if form == "review":
        return _fact_review(rng, name, relation)
    ask = _TRUE if form == "true-false" else doubts.FORMS[form]
    turns, request = ask(rng, name, relation)
    return turns, doubts.reply(rng, request, True)


def _fact_review(rng: Random, name: str, relation: str) -> Said:
    """The truth that nothing is wrong with, or in the place of a wrong answer."""
    turns, request = doubts.plain(rng, name, relation)
    truth = doubts.reply(rng, request, True)
    if rng.random() < 0.4:
        asked = Request("critique", subject=request, replies=(truth,))
        said = (*turns, Turn("assistant", truth), Turn("user", critiques.critique_request()))
        return said, reviews.write_critique(rng, asked, "right")
    return reviewed(rng, turns, request, doubts.reply(rng, request, False), "false", truth)


DOCUMENTS: dict[str, Callable[[Random, Draw], Said]] = {
    "review": review,
    "judged": judged,
    "unknowable": unknowable,
    "claim": claim,
    "guess": guess,
}
