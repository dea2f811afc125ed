"""The history: events are appended in the order of their numbers, and read as records up to one of them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from accord.feedback.store.answers import labeler_of, records_of
from accord.feedback.store.questions import Item, item_from_json
from accord.feedback.store.schema import CLOCK, EVENTS, ITEMS
from accord.records import Comparison, Demonstration, Judgement

if TYPE_CHECKING:
    from sqlalchemy import Connection

ANSWERED, SKIPPED, WITHDRAWN, ADMINISTRATION = "answer", "skip", "withdrawal", "administration"
DECIDED = "decision"  # of a reviewer


def append(
    connection: "Connection",
    kind: str,
    body: Mapping[str, Any],
    *,
    at: float,
    person: int | None,
    item: int | None = None,
    submission: str | None = None,
) -> int:
    """Write one event and return its number; only inside `Database.write`."""
    connection.execute(update(CLOCK).values(number=CLOCK.c.number + 1))
    number = last_event(connection)
    connection.execute(
        insert(EVENTS).values(
            number=number, kind=kind, body=dict(body), at=at, person=person, item=item, submission=submission
        )
    )
    return number


def last_event(connection: "Connection") -> int:
    """The number of the newest event; 0 where there is none."""
    return int(connection.execute(select(CLOCK.c.number)).scalar_one())


def read_records(
    connection: "Connection", until: int, *, decisions: bool = True
) -> Iterator[tuple[int, Comparison | Judgement | Demonstration]]:
    """What holds at event `until`: each record with the number of its event, in the order of the events.

    Of what a person said of an item the last answer counts that was not taken back by then. With `decisions` the last
    one of a reviewer is read in place of all answers to its item.
    """
    standing: dict[int, tuple[int, int, Mapping[str, Any]]] = {}
    decided: dict[int, int] = {}
    kinds = (ANSWERED, WITHDRAWN, *((DECIDED,) if decisions else ()))
    history = select(EVENTS).where(EVENTS.c.number <= until, EVENTS.c.kind.in_(kinds))
    for event in connection.execute(history.order_by(EVENTS.c.number)):
        if event.kind == WITHDRAWN:
            standing.pop(event.body["of"], None)
            continue
        standing[event.number] = (event.item, event.person, event.body)
        if event.kind == DECIDED:
            decided[event.item] = event.number
    items: dict[int, Item] = {}
    for number, (item, person, body) in standing.items():
        if decided.get(item, number) != number:
            continue
        if item not in items:
            row = connection.execute(select(ITEMS.c.mode, ITEMS.c.body).where(ITEMS.c.id == item)).one()
            items[item] = item_from_json(row.mode, row.body)
        for record in records_of(items[item], body, labeler_of(person, body["group"])):
            yield number, record
