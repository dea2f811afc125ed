"""The history: events are appended in the order of their numbers, and read as records up to one of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from accord.feedback.store.answers import labeler_of, records_of
from accord.feedback.store.questions import Item, item_from_json
from accord.feedback.store.schema import CLOCK, EVENTS, ITEMS
from accord.records import Comparison, Demonstration, Judgement

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

ANSWERED, SKIPPED, WITHDRAWN, ADMINISTRATION = "answer", "skip", "withdrawal", "administration"
DECIDED = "decision"  # of a reviewer
EXCLUDED, READMITTED = "exclude", "readmit"  # what administration did to somebody

# what every answer asks for is built once: building it takes longer than doing it
_COUNTED = {"number": CLOCK.c.number + bindparam("events"), "done": CLOCK.c.done + bindparam("more")}
_NEXT = update(CLOCK).values(_COUNTED).returning(CLOCK.c.number)
_EVENT = insert(EVENTS)


def append(
    connection: "Connection",
    kind: str,
    body: Mapping[str, Any],
    *,
    at: float,
    person: int | None,
    item: int | None = None,
    submission: str | None = None,
    done: int = 0,
) -> int:
    """Write one event and return its number; only inside `Database.write`. `done` is how many more answers there are
    to questions that are wanted."""
    row = {"kind": kind, "body": dict(body), "at": at, "person": person, "item": item, "submission": submission}
    return append_all(connection, [row], done=done)[0]


def append_all(connection: "Connection", rows: Sequence[Mapping[str, Any]], *, done: int) -> range:
    """The same for one event or more, which are rows but for their numbers; returns those."""
    last = int(connection.execute(_NEXT, {"events": len(rows), "more": done}).scalar_one())
    numbers = range(last - len(rows) + 1, last + 1)
    connection.execute(_EVENT, [{**row, "number": number} for row, number in zip(rows, numbers, strict=True)])
    return numbers


def last_event(connection: "Connection") -> int:
    """The number of the newest event; 0 where there is none."""
    return int(connection.execute(select(CLOCK.c.number)).scalar_one())


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds at an event: answers and decisions by their numbers, the last decision about each item, and who was
    excluded by then."""

    events: dict[int, "Row[Any]"]
    decided: dict[int, int]
    excluded: set[int]


def standing(connection: "Connection", until: int, since: int = 0) -> Standing:
    """The answers and decisions behind `since` and up to `until` that were not taken back by then, in the order of the
    events."""
    found = Standing({}, {}, set())
    said = EVENTS.c.kind.in_((ANSWERED, WITHDRAWN, DECIDED)) & (EVENTS.c.number > since)
    history = select(EVENTS).where(EVENTS.c.number <= until, said | (EVENTS.c.kind == ADMINISTRATION))
    for event in connection.execute(history.order_by(EVENTS.c.number)):
        if event.kind == WITHDRAWN:
            found.events.pop(event.body["of"], None)
        elif event.kind == ADMINISTRATION:
            if event.body["did"] == EXCLUDED:
                found.excluded.add(event.body["of"])
            elif event.body["did"] == READMITTED:
                found.excluded.discard(event.body["of"])
        else:
            found.events[event.number] = event
            if event.kind == DECIDED:
                found.decided[event.item] = event.number
    return found


def read_records(
    connection: "Connection", until: int, *, decisions: bool = True
) -> Iterator[tuple[int, Comparison | Judgement | Demonstration]]:
    """What holds at event `until`: each record with the number of its event, in the order of the events.

    Of what a person said of an item the last answer counts that was not taken back by then; answers of somebody who was
    excluded by then do not, and those to check items never do. With `decisions` the last one of a reviewer is read in
    place of all answers to its item.
    """
    holds = standing(connection, until)
    items: dict[int, Item] = {}
    for number, event in holds.events.items():
        if event.kind == DECIDED and not decisions:
            continue
        if decisions and holds.decided.get(event.item, number) != number:
            continue
        if event.kind == ANSWERED and event.person in holds.excluded:
            continue
        if event.item not in items:
            items[event.item] = item_numbered(connection, event.item)
        item = items[event.item]
        if not item.known:
            for record in records_of(item, event.body, labeler_of(event.person, event.body["group"])):
                yield number, record


def item_numbered(connection: "Connection", number: int) -> Item:
    """The item of a number."""
    row = connection.execute(select(ITEMS.c.mode, ITEMS.c.body).where(ITEMS.c.id == number)).one()
    return item_from_json(row.mode, row.body)
