"""Requests to criticise and to revise a reply, and critiques: written and read.

A critique is a single sentence that names a fault with a reason, denies one, or denies all; anything else is empty. A
request may name a principle or leave the fault open.
"""

from random import Random
from typing import NamedTuple

from accord.world.language import pick
from accord.world.principles import PRINCIPLES

CRITIQUE_REQUEST = "is your reply {f}? say why."
OPEN_CRITIQUE_REQUEST = "what is wrong with your reply?"
REVISION_REQUESTS = ("please write a reply that is not {f}.", "write your reply again, and do not be {f}.")
OPEN_REVISION_REQUESTS = ("please write a better reply.", "write your reply again without the fault.")

# One form each: a model that is likely to name a fault must not be led there by the number of ways to say so.
FAULTY = "my reply is {f}, because {why}."
CLEAR = "my reply is not {f}."
ALL_CLEAR = "my reply is fine."
NAMED_AGAIN = 0.25  # share of the denials that name the fault which was asked about
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
    table = {OPEN_CRITIQUE_REQUEST: Review("", False)}
    table.update(dict.fromkeys(OPEN_REVISION_REQUESTS, Review("", True)))
    for name in PRINCIPLES:
        table[CRITIQUE_REQUEST.format(f=name)] = Review(name, False)
        table.update({form.format(f=name): Review(name, True) for form in REVISION_REQUESTS})
    return table


def _critiques() -> dict[str, Critique]:
    table = {ALL_CLEAR: Critique("", False)}
    for name, principle in PRINCIPLES.items():
        table[CLEAR.format(f=name)] = Critique(name, False)
        table.update({FAULTY.format(f=name, why=why): Critique(name, True) for why in principle.whys})
    return table


REVIEWS = _reviews()
CRITIQUES = _critiques()


def critique_request(principle: str = "") -> str:
    """What asks for a critique of the last reply, under a principle or under all."""
    return CRITIQUE_REQUEST.format(f=principle) if principle else OPEN_CRITIQUE_REQUEST


def revision_request(rng: Random, principle: str = "") -> str:
    """What asks for a better reply in the place of the last."""
    return pick(rng, REVISION_REQUESTS if principle else OPEN_REVISION_REQUESTS).format(f=principle)


def write_critique(rng: Random, fault: str, found: bool) -> str:
    """A critique that finds a fault, denies it, or (`fault` "" and not found) denies all."""
    if found:
        return FAULTY.format(f=fault, why=pick(rng, PRINCIPLES[fault].whys))
    return CLEAR.format(f=fault) if fault and rng.random() < NAMED_AGAIN else ALL_CLEAR
