"""Which item comes next: check items now and then, a random share, and first what an ensemble disagrees about.

Items wait in lines. Statistics about people and criteria use the items in line `random` alone: an item came into it by
chance, or because nothing was known by which to choose, and never because models disagree about it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from sqlalchemy import select, union_all, update

from accord.evaluation.checks import CheckRule
from accord.feedback.store.questions import QUEUED, Item, Mode
from accord.feedback.store.schema import ASSIGNMENTS, ITEMS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

RANDOM, ACTIVE, CHECK, TALK = "random", "active", "check", "talk"
EVERYBODY = 2**31 - 1  # how many are to answer a check item


@dataclass(frozen=True, slots=True)
class Selection:
    """Of questions handed out, the share that are check items; of those with a score, the share taken at random,
    when they are added as well as when they are handed out; and who is excluded."""

    checks: float = 0.1
    random: float = 0.2
    rule: CheckRule = field(default_factory=CheckRule)


SELECTION = Selection()


def line_of(item: Item, share: float, dice: Random) -> tuple[str, float]:
    """In which line a new item waits, and its place there, the least first; `share` of the scored ones are random."""
    if item.talk:
        return TALK, 0.0
    if item.known:
        return CHECK, dice.random()
    if item.score is None:
        return RANDOM, 0.0  # in the order in which they came
    return (RANDOM, dice.random()) if dice.random() < share else (ACTIVE, -item.score)


def lines_in_turn(selection: Selection, dice: Random) -> list[str]:
    """The lines that one request looks through until it finds an item."""
    first = [CHECK] if dice.random() < selection.checks else []
    return [*first, *((RANDOM, ACTIVE) if dice.random() < selection.random else (ACTIVE, RANDOM))]


def first_open(
    connection: "Connection",
    person: int,
    lines: Iterable[str],
    *,
    modes: Sequence[Mode],
    tags: Sequence[str],
    harmful: bool,
) -> int | None:
    """The number of the first item in the first of the lines that has one which the person has not had and may have.

    One look into the index for every tag, so that no item is read that the person may not have.
    """
    for line in lines:
        looks = [
            _look(person, line, modes, tag, weighs)
            for tag in ("", *tags)
            for weighs in ((False, True) if harmful else (False,))
        ]
        found = union_all(*(select(look.subquery()) for look in looks)).subquery()
        number = connection.execute(select(found.c.id).order_by(found.c.place, found.c.id).limit(1)).scalar()
        if number is not None:
            return int(number)
    return None


def _look(person: int, line: str, modes: Sequence[Mode], tag: str, harmful: bool) -> "Select[tuple[float, int]]":
    had = select(ASSIGNMENTS.c.item).where(ASSIGNMENTS.c.item == ITEMS.c.id, ASSIGNMENTS.c.person == person)
    here = select(ITEMS.c.place, ITEMS.c.id).where(
        ITEMS.c.queue == line, ITEMS.c.open.is_(True), ITEMS.c.harmful.is_(harmful), ITEMS.c.tag == tag, ~had.exists()
    )
    if set(modes) != set(QUEUED):
        here = here.where(ITEMS.c.mode.in_(modes))
    return here.order_by(ITEMS.c.place, ITEMS.c.id).limit(1)


def rescore(connection: "Connection", items: Iterable[Item]) -> None:
    """Move items that wait by their score to where a new one puts them; others keep their place."""
    for item in items:
        if item.score is not None:
            waits = (ITEMS.c.hash == item.id) & (ITEMS.c.queue == ACTIVE)
            connection.execute(update(ITEMS).where(waits).values(place=-item.score))
