"""Who is excluded: by the rule of check items, or by an admin. Both are events, so that a reader of the history knows.

Of somebody who is excluded no answer is read, and what they answered is asked of others. Once readmitted, their
answers count again, beside those that were given instead.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from accord.evaluation.checks import CheckRule, Known, is_right
from accord.feedback.store.assignments import DONE, LEASED, VOID, count, release
from accord.feedback.store.events import ADMINISTRATION, DECIDED, EXCLUDED, READMITTED, append
from accord.feedback.store.questions import Item, item_from_json
from accord.feedback.store.schema import ASSIGNMENTS, EVENTS, ITEMS, PEOPLE
from accord.feedback.store.selection import ACTIVE, CHECK, RANDOM

if TYPE_CHECKING:
    from sqlalchemy import Connection


def said_under(item: Item, body: Mapping[str, Any]) -> tuple[Known, ...]:
    """An answer in the form of `Item.known`: what was said under each criterion."""
    if item.mode == "safety":
        return tuple((int(body["safe"]),) for _ in item.criteria)
    return tuple(tuple(body["choices"][criterion]["ranks"]) for criterion in item.criteria)


def right_answer(item: Item, decision: Mapping[str, Any] | None) -> tuple[Known, ...]:
    """What counts as right of a check item: what a reviewer decided, else what was known."""
    return item.known if decision is None else said_under(item, decision)


def checked(connection: "Connection", person: int) -> tuple[int, int]:
    """How many check items somebody answered rightly, and how many in all, since they were last readmitted."""
    about = (EVENTS.c.body["did"].as_string() == READMITTED) & (EVENTS.c.body["of"].as_integer() == person)
    last = select(func.coalesce(func.max(EVENTS.c.number), 0)).where(EVENTS.c.kind == ADMINISTRATION, about)
    since = connection.execute(last).scalar_one()
    asked = (
        select(ITEMS.c.id, ITEMS.c.mode, ITEMS.c.body, EVENTS.c.body.label("said"))
        .join(ASSIGNMENTS, ASSIGNMENTS.c.item == ITEMS.c.id)
        .join(EVENTS, EVENTS.c.number == ASSIGNMENTS.c.event)
        .where(ASSIGNMENTS.c.person == person, ASSIGNMENTS.c.state == DONE, ASSIGNMENTS.c.event > since)
        .where(ITEMS.c.queue == CHECK)
    )
    outcomes = []
    for row in connection.execute(asked):
        item = item_from_json(row.mode, row.body)
        decided = select(EVENTS.c.body).where(EVENTS.c.item == row.id, EVENTS.c.kind == DECIDED)
        decision = connection.execute(decided.order_by(EVENTS.c.number.desc()).limit(1)).scalar()
        outcomes.append(is_right(right_answer(item, decision), said_under(item, row.said)))
    return sum(outcomes), len(outcomes)


def enforce(connection: "Connection", person: int, rule: CheckRule, at: float) -> None:
    """Exclude somebody if the rule says so."""
    right, answered = checked(connection, person)
    if rule.excludes(right, answered):
        exclude(connection, person, at=at, by=None, right=right, answered=answered)


def exclude(connection: "Connection", person: int, *, at: float, by: int | None, **why: int) -> None:
    """Ask somebody nothing more, and others what they were asked; `by` is the admin, None for the rule."""
    release(connection, (ASSIGNMENTS.c.person == person) & (ASSIGNMENTS.c.state == LEASED))
    moved = _move(connection, person, DONE, VOID, -1)
    append(connection, ADMINISTRATION, {"did": EXCLUDED, "of": person, **why}, at=at, person=by, done=-moved)
    connection.execute(update(PEOPLE).where(PEOPLE.c.id == person).values(excluded=True))


def readmit(connection: "Connection", person: int, *, at: float, by: int) -> None:
    """Take an exclusion back; the rule begins anew."""
    moved = _move(connection, person, VOID, DONE, 1)
    append(connection, ADMINISTRATION, {"did": READMITTED, "of": person}, at=at, person=by, done=moved)
    connection.execute(update(PEOPLE).where(PEOPLE.c.id == person).values(excluded=False))


def _move(connection: "Connection", person: int, old: str, new: str, by: int) -> int:
    """Answers from one state into another, and the counts of their items with them; returns how many."""
    asked = ITEMS.alias()
    queued = select(asked.c.id).where(asked.c.id == ASSIGNMENTS.c.item, asked.c.queue.in_((RANDOM, ACTIVE)))
    theirs = (ASSIGNMENTS.c.person == person) & (ASSIGNMENTS.c.state == old) & queued.exists()
    moved = connection.execute(select(func.count()).where(theirs)).scalar_one()
    count(connection, ITEMS.c.id.in_(select(ASSIGNMENTS.c.item).where(theirs)), by)
    connection.execute(update(ASSIGNMENTS).where(theirs).values(state=new))
    return int(moved)
