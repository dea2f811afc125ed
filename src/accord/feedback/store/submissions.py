"""Answers are taken in: all that wait at one time by the same few statements, since most of an answer's time is asking.

Whose answer is refused changes nothing for the others.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import bindparam, select

from accord.evaluation.checks import CheckRule
from accord.feedback.store import checks
from accord.feedback.store.answers import ANSWERS, PersonAnswer, to_body
from accord.feedback.store.assignments import DONE, Declined, given_to, in_hand, settle
from accord.feedback.store.events import ANSWERED, append_all
from accord.feedback.store.questions import Item, is_aided
from accord.feedback.store.schema import EVENTS, PEOPLE

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# built once: building a statement takes longer than doing it
_KNOWN = select(EVENTS.c.submission, EVENTS.c.number, EVENTS.c.person, EVENTS.c.item).where(
    EVENTS.c.submission.in_(bindparam("submissions", expanding=True))
)
_GROUP = select(PEOPLE.c.value_group).where(PEOPLE.c.id == bindparam("person"))


class Submission(NamedTuple):
    """An answer of a person to an item, under an id that tells a repetition from a second answer."""

    person: int
    item: int
    id: str
    answer: PersonAnswer


class _Taken(NamedTuple):
    """A submission that will do: the item, and what the event keeps."""

    given: Submission
    item: Item
    body: dict[str, Any]


def take_in(
    connection: "Connection", given: Sequence[Submission], *, at: float, rule: CheckRule
) -> list[int | Declined]:
    """Of each submission the number of its event, or why it is refused; one that is known is not taken twice."""
    told: dict[int, int | Declined] = {}
    waiting = dict(enumerate(given))
    while waiting:
        # of several about the same, one at a time: the next finds what that one has left
        turn, about = dict[int, Submission](), set[Any]()
        for place, one in waiting.items():
            mine = {one.id, (one.person, one.item)}
            if not mine & about:
                turn[place] = one
            about |= mine
        told |= zip(turn, _take_in_different(connection, list(turn.values()), at, rule), strict=True)
        waiting = {place: one for place, one in waiting.items() if place not in turn}
    return [told[place] for place in range(len(given))]


def _take_in_different(
    connection: "Connection", given: Sequence[Submission], at: float, rule: CheckRule
) -> list[int | Declined]:
    """The same, where no two submissions are about one thing."""
    known = {row.submission: row for row in connection.execute(_KNOWN, {"submissions": [one.id for one in given]})}
    held = given_to(connection, [(one.person, one.item) for one in given])
    found: list[int | Declined | _Taken] = []
    for one in given:
        try:
            event = _own(known.get(one.id), one.person, one.item)
            found.append(_check(one, held.get((one.person, one.item))) if event is None else event)
        except Declined as refusal:
            found.append(refusal)
    taken = [one for one in found if isinstance(one, _Taken)]
    numbers = iter(_keep(connection, taken, at, rule))
    return [next(numbers) if isinstance(one, _Taken) else one for one in found]


def _check(one: Submission, row: "Row[Any] | None") -> _Taken:
    """Raises Declined for what is no answer to the item, or comes from somebody who has it not."""
    held = in_hand(row)
    assert row is not None
    check_answer(one.answer, held.item)
    body = to_body(one.answer, held.shown) | {"group": str(row.value_group)}
    if held.item.aids:
        body["aided"] = is_aided(held.item, one.person)
    return _Taken(one, held.item, body)


def _keep(connection: "Connection", taken: Sequence[_Taken], at: float, rule: CheckRule) -> Sequence[int]:
    """Write answers down, and see whom the check items among them exclude; returns the numbers of the events."""
    if not taken:
        return ()
    rows = [
        {
            "kind": ANSWERED,
            "body": one.body,
            "at": at,
            "person": one.given.person,
            "item": one.given.item,
            "submission": one.given.id,
        }
        for one in taken
    ]
    numbers = append_all(connection, rows, done=sum(not one.item.known for one in taken))
    ended = [(one.given.person, one.given.item, event) for one, event in zip(taken, numbers, strict=True)]
    settle(connection, DONE, ended)
    for one in taken:
        if one.item.known:
            checks.enforce(connection, one.given.person, rule, at)
    return numbers


def check_answer(answer: PersonAnswer, item: Item) -> None:
    """Raises Declined for what is no answer to the item."""
    if type(answer) is not ANSWERS[item.mode]:
        raise Declined("this question is of another mode")
    if problem := answer.problem(item):
        raise Declined(problem)


def _own(known: "Row[Any, Any, Any, Any] | None", person: int, item: int) -> int | None:
    """The event of a submission that was taken before. Raises Declined where somebody else made it, or for another."""
    if known is None:
        return None
    if (known.person, known.item) != (person, item):
        raise Declined("this submission id was used for something else")
    return int(known.number)


def known_event(connection: "Connection", submission: str, person: int, item: int) -> int | None:
    """The same of one submission id, looked up."""
    return _own(connection.execute(_KNOWN, {"submissions": [submission]}).first(), person, item)


def group_of(connection: "Connection", person: int) -> str:
    """The value group of a person, as it is now."""
    return str(connection.execute(_GROUP, {"person": person}).scalar_one())
