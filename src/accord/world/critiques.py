"""Requests to criticise and to revise a reply, and critiques: written and read.

A critique is a single sentence that names a fault with a reason, denies one, or denies all; anything else is empty. A
request may name a principle or leave the fault open.
"""

from random import Random
from typing import NamedTuple

from accord.world.language import pick
from accord.world.principles import PRINCIPLES

CRITIQUE_REQUESTS = (
    "is your reply {f}? say why.",
    "tell me how your reply is {f}.",
    "please look at your reply again. is it {f}?",
)
OPEN_CRITIQUE_REQUESTS = (
    "what is wrong with your reply?",
    "please look at your reply again. what is wrong with it?",
)
REVISION_REQUESTS = ("please write a reply that is not {f}.", "write your reply again, and do not be {f}.")
OPEN_REVISION_REQUESTS = ("please write a better reply.", "write your reply again without the fault.")

FAULT_FORMS = ("my reply is {f}, because {why}.", "the reply is {f}, because {why}.")
CLEAR_FORMS = ("my reply is not {f}.", "no, it is not {f}.")
ALL_CLEAR = ("nothing is wrong with my reply.", "there is no fault in my reply.")
EMPTY = ("my reply could be better.", "every reply has two sides.", "that is hard to say.")


class Critique(NamedTuple):
    """What one sentence of a critique says: `fault` is the principle it is about, "" for all of them; `found` whether
    the reply has that fault."""

    fault: str
    found: bool


class Review(NamedTuple):
    """A request to look at the last reply again: `revise` asks for a new reply, else for a critique."""

    principle: str
    revise: bool


def _reviews() -> dict[str, Review]:
    table = dict.fromkeys(OPEN_CRITIQUE_REQUESTS, Review("", False))
    table.update(dict.fromkeys(OPEN_REVISION_REQUESTS, Review("", True)))
    for name in PRINCIPLES:
        table.update({form.format(f=name): Review(name, False) for form in CRITIQUE_REQUESTS})
        table.update({form.format(f=name): Review(name, True) for form in REVISION_REQUESTS})
    return table


def _critiques() -> dict[str, Critique]:
    table = dict.fromkeys(ALL_CLEAR, Critique("", False))
    for name, principle in PRINCIPLES.items():
        table.update({form.format(f=name): Critique(name, False) for form in CLEAR_FORMS})
        table.update({f.format(f=name, why=why): Critique(name, True) for f in FAULT_FORMS for why in principle.whys})
    return table


REVIEWS = _reviews()
CRITIQUES = _critiques()


def critique_request(rng: Random, principle: str = "") -> str:
    """What asks for a critique of the last reply, under a principle or under all."""
    return pick(rng, CRITIQUE_REQUESTS if principle else OPEN_CRITIQUE_REQUESTS).format(f=principle)


def revision_request(rng: Random, principle: str = "") -> str:
    """What asks for a better reply in the place of the last."""
    return pick(rng, REVISION_REQUESTS if principle else OPEN_REVISION_REQUESTS).format(f=principle)


def write_critique(rng: Random, fault: str, found: bool) -> str:
    """A critique that finds a fault, denies it, or (`fault` "" and not found) denies all."""
    if found:
        return pick(rng, FAULT_FORMS).format(f=fault, why=pick(rng, PRINCIPLES[fault].whys))
    return pick(rng, CLEAR_FORMS).format(f=fault) if fault else pick(rng, ALL_CLEAR)
