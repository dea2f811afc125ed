"""Who holds which item, and how many have it: what every change of an assignment keeps in step."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, select, update

from accord.feedback.store.schema import ASSIGNMENTS, ITEMS

if TYPE_CHECKING:
    from sqlalchemy import Connection

SWEEP = 100  # leases that ended, at most, that one call takes back
LEASED, DONE, PASSED = "leased", "answered", "skipped"
VOID = "void"  # answered by somebody who is excluded: somebody else is asked

_SETTLE = (
    update(ASSIGNMENTS)
    .where(ASSIGNMENTS.c.item == bindparam("of_item"), ASSIGNMENTS.c.person == bindparam("of_person"))
    .values(state=bindparam("ended"), event=bindparam("by"), draft=None)
)


def settle(connection: "Connection", person: int, number: int, state: str, event: int) -> None:
    """A lease ends with an answer or a skip."""
    connection.execute(_SETTLE, {"of_item": number, "of_person": person, "ended": state, "by": event})


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
