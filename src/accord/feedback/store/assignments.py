"""Who holds which item, and how many have it: what every change of an assignment keeps in step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, select, update

from accord.feedback.store.questions import Item, item_from_json
from accord.feedback.store.schema import ASSIGNMENTS, ITEMS, PEOPLE

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

SWEEP = 100  # leases that ended, at most, that one call takes back
LEASED, DONE, PASSED = "leased", "answered", "skipped"
VOID = "void"  # answered by somebody who is excluded: somebody else is asked

# both are built once: building a statement takes longer than doing it
_HELD = (
    select(
        ITEMS.c.id,
        ITEMS.c.mode,
        ITEMS.c.body,
        ASSIGNMENTS.c.person,
        ASSIGNMENTS.c.shown,
        ASSIGNMENTS.c.draft,
        ASSIGNMENTS.c.until,
        ASSIGNMENTS.c.state,
        PEOPLE.c.value_group,
    )
    .join(ASSIGNMENTS, ASSIGNMENTS.c.item == ITEMS.c.id)
    .join(PEOPLE, PEOPLE.c.id == ASSIGNMENTS.c.person)
    .where(ITEMS.c.id.in_(bindparam("items", expanding=True)))
    .where(ASSIGNMENTS.c.person.in_(bindparam("persons", expanding=True)))
)
_SETTLE = (
    update(ASSIGNMENTS)
    .where(ASSIGNMENTS.c.item == bindparam("of_item"), ASSIGNMENTS.c.person == bindparam("of_person"))
    .values(state=bindparam("ended"), event=bindparam("by"), draft=None)
)


class Declined(Exception):
    """The store cannot do what was asked, as things stand now; the message says why to a person."""


@dataclass(frozen=True, slots=True)
class Handout:
    """An item in somebody's hands: its number, the order its replies are shown in, the draft, the end of the lease."""

    number: int
    item: Item
    shown: tuple[int, ...]
    draft: Any
    until: float


def handout(row: "Row[Any]") -> Handout:
    """What a person has, from columns of the item and of the assignment."""
    return Handout(row.id, item_from_json(row.mode, row.body), tuple(row.shown), row.draft, row.until)


def given_to(connection: "Connection", asked: Sequence[tuple[int, int]]) -> "dict[tuple[int, int], Any]":
    """Of each person and item the item with what the person was given; nothing where it never was theirs."""
    persons, items = [list(ids) for ids in zip(*asked, strict=True)]
    rows = connection.execute(_HELD, {"persons": persons, "items": items})
    return {(row.person, row.id): row for row in rows}


def in_hand(row: "Row[Any] | None") -> Handout:
    """The same, where they have it now. Raises Declined."""
    if row is None:
        raise Declined("this question is not yours: it was given to somebody else, or never to you")
    if row.state != LEASED:
        raise Declined("you have answered this question; take the answer back to change it")
    return handout(row)


def settle(connection: "Connection", state: str, ended: Iterable[tuple[int, int, int]]) -> None:
    """One lease or more ends with an answer or a skip: of whom, on which item, by which event."""
    rows = [{"of_person": person, "of_item": item, "by": event, "ended": state} for person, item, event in ended]
    connection.execute(_SETTLE, rows)


def count(connection: "Connection", which: Any, by: int) -> None:
    """Move how many have the items."""
    connection.execute(
        update(ITEMS).where(which).values(taken=ITEMS.c.taken + by, open=ITEMS.c.taken + by < ITEMS.c.wanted)
    )


def release(connection: "Connection", which: Any) -> None:
    """Give the items of leases back."""
    ended = connection.execute(
        select(ASSIGNMENTS.c.item, ASSIGNMENTS.c.person).where(which).order_by(ASSIGNMENTS.c.until).limit(SWEEP)
    ).all()
    for item, person in ended:
        connection.execute(delete(ASSIGNMENTS).where(ASSIGNMENTS.c.item == item, ASSIGNMENTS.c.person == person))
        count(connection, ITEMS.c.id == item, -1)
