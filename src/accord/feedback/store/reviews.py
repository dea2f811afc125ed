"""Reviews: items on which people disagree, and check items that somebody got wrong, for a reviewer to decide.

A decision is an event of its own. It is read in place of the answers to its item, unless a reader asks for these; of a
check item, whose answers are no labels, it takes the place of the known answer.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from accord.evaluation.checks import is_right
from accord.feedback.store.answers import PersonAnswer, labeler_of, to_body
from accord.feedback.store.assignments import DONE, Declined, Handout
from accord.feedback.store.checks import said_under
from accord.feedback.store.desk import Desk, as_shown
from accord.feedback.store.events import DECIDED, append
from accord.feedback.store.questions import Item, Mode, item_from_json
from accord.feedback.store.schema import ASSIGNMENTS, EVENTS, ITEMS
from accord.feedback.store.selection import CHECK
from accord.feedback.store.submissions import check_answer, group_of, known_event

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVIEWED: tuple[Mode, ...] = ("compare", "safety")  # of which two answers can contradict each other
LOOKED_AT = 1000  # items that one call looks through


@dataclass(frozen=True, slots=True)
class Said:
    """An answer under review, as the page shows it: who said it goes by a number."""

    labeler: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What a reviewer decides: an item as it is handed out, the answers to it, and the known one of a check item."""

    held: Handout
    said: tuple[Said, ...]
    known: Mapping[str, Any] | None = None


class Reviews:
    """The disagreements of a desk, and its check items."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def next(self, after: int = 0) -> Case | None:
        """The first item behind number `after` that is to be decided and was not yet; None without one."""
        answered = select(ASSIGNMENTS.c.item).where(ASSIGNMENTS.c.state == DONE, ASSIGNMENTS.c.item > after)
        several = answered.group_by(ASSIGNMENTS.c.item).having(func.count() > 1)
        checks = (ITEMS.c.queue == CHECK) & ITEMS.c.id.in_(answered)
        decided = select(EVENTS.c.item).where(EVENTS.c.kind == DECIDED)
        asked = (
            select(ITEMS)
            .where(ITEMS.c.mode.in_(REVIEWED), ITEMS.c.id.not_in(decided), ITEMS.c.id.in_(several) | checks)
            .order_by(ITEMS.c.id)
            .limit(LOOKED_AT)
        )
        with self.desk.database.read() as connection:
            for row in connection.execute(asked):
                item = item_from_json(row.mode, row.body)
                answers = _answers(connection, row.id)
                if is_doubtful(item, [answer.body for answer in answers]):
                    return _case(row.id, item, answers)
        return None

    def decide(self, person: int, number: int, submission: str, answer: PersonAnswer) -> int:
        """What holds of an item; returns the number of the event. A later decision replaces an earlier one."""

        def change(connection: "Connection") -> int:
            if (known := known_event(connection, submission, person, number)) is not None:
                return known
            row = connection.execute(select(ITEMS).where(ITEMS.c.id == number)).first()
            answers = _answers(connection, number) if row is not None else []
            if row is None or row.mode not in REVIEWED or not answers:
                raise Declined("nobody has answered this question: there is nothing to decide")
            item = item_from_json(row.mode, row.body)
            check_answer(answer, item)
            body = to_body(answer, order_of(item)) | {
                "group": group_of(connection, person),
                "about": [said.number for said in answers],
            }
            return append(
                connection, DECIDED, body, at=self.desk.clock(), person=person, item=number, submission=submission
            )

        return self.desk.database.write(change)


def is_doubtful(item: Item, bodies: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is something to decide: people disagree, or somebody did not give the known answer."""
    if item.known:
        return not all(is_right(item.known, said_under(item, body)) for body in bodies)
    return disagree(item, bodies)


def known_body(item: Item) -> dict[str, Any]:
    """The known answer of a check item in the form of one that somebody gave."""
    if item.mode == "safety":
        return {"safe": bool(item.known[0][0])}
    ranked = zip(item.criteria, item.known, strict=True)
    return {"choices": {criterion: {"ranks": list(ranks)} for criterion, ranks in ranked}}


def disagree(item: Item, bodies: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one answer says the opposite of another: another order of two replies, or safe against unsafe.

    A tie against a choice is no contradiction.
    """
    if item.mode == "safety":
        return len({body["safe"] for body in bodies}) > 1
    for criterion in item.criteria:
        ranks = [body["choices"][criterion]["ranks"] for body in bodies]
        for one, other in combinations(range(len(item.replies)), 2):
            if {-1, 1} <= {(given[one] > given[other]) - (given[one] < given[other]) for given in ranks}:
                return True
    return False


def order_of(item: Item) -> tuple[int, ...]:
    """The order that every reviewer sees: it tells nothing, and is the same when the page is loaded again."""
    places = len(item.replies)
    return tuple(random.Random(item.id).sample(range(places), places))


def _answers(connection: "Connection", number: int) -> list[Any]:
    """The events of the answers that hold, in their order."""
    holds = (ASSIGNMENTS.c.item == number) & (ASSIGNMENTS.c.state == DONE)
    asked = select(EVENTS).join(ASSIGNMENTS, ASSIGNMENTS.c.event == EVENTS.c.number).where(holds)
    return list(connection.execute(asked.order_by(EVENTS.c.number)))


def _case(number: int, item: Item, answers: Sequence[Any]) -> Case:
    shown = order_of(item)
    said = tuple(Said(labeler_of(event.person, event.body["group"]), as_shown(event.body, shown)) for event in answers)
    known = as_shown(known_body(item), shown) if item.known else None
    return Case(Handout(number, item, shown, None, 0.0), said, known)
