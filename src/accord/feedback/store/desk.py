"""The desk: hands items out, takes answers in, and takes them back.

An item goes to exactly as many people as it asks for: whoever holds a lease or has answered counts, and an item that is
skipped, or whose lease ends, goes to somebody else. Everything that changes the store is one transaction.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, insert, select, update

from accord.feedback.store.answers import PersonAnswer
from accord.feedback.store.assignments import (
    DONE,
    LEASED,
    PASSED,
    VOID,
    Declined,
    Handout,
    count,
    given_to,
    handout,
    in_hand,
    release,
    settle,
)
from accord.feedback.store.database import Database
from accord.feedback.store.events import SKIPPED, WITHDRAWN, append, item_numbered
from accord.feedback.store.exposure import NO_CAPS, Caps, Exposure, exposure_of
from accord.feedback.store.questions import LIVE, MODES, QUEUED, Item, Mode, item_to_json
from accord.feedback.store.schema import ASSIGNMENTS, CLOCK, EVENTS, ITEMS, PEOPLE, TALKS
from accord.feedback.store.selection import (
    ACTIVE,
    EVERYBODY,
    RANDOM,
    SELECTION,
    Selection,
    first_open,
    line_of,
    lines_in_turn,
    rescore,
)
from accord.feedback.store.submissions import Submission, known_event, take_in

if TYPE_CHECKING:
    from sqlalchemy import Connection

LEASE = 1800.0  # seconds that an item waits for the one who has it


class Desk:
    """What an annotator can do. `clock` gives the seconds since 1970, `lease` those that an item waits; `caps` bound
    how much harmful text one person gets, `selection` says what is asked next."""

    def __init__(
        self,
        database: Database,
        *,
        lease: float = LEASE,
        clock: Callable[[], float] = time.time,
        caps: Caps = NO_CAPS,
        selection: Selection = SELECTION,
    ) -> None:
        self.database, self.lease, self.clock, self.caps, self.selection = database, lease, clock, caps, selection
        self._random = random.SystemRandom()

    def add(self, items: Iterable[Item]) -> int:
        """Put items on the desk and return how many were not there yet; of one that waits a new score counts.

        Raises BadInput for one nobody could answer.
        """
        checked = {item.id: item.check() for item in items}

        def change(connection: "Connection") -> int:
            ids = list(checked)
            known: set[str] = set()
            for start in range(0, len(ids), 500):  # SQLite takes no more than 999 values
                asked = select(ITEMS.c.hash).where(ITEMS.c.hash.in_(ids[start : start + 500]))
                known |= set(connection.execute(asked).scalars())
            rescore(connection, [checked[name] for name in known])
            rows = [self.item_row(item) for name, item in checked.items() if name not in known]
            if rows:
                connection.execute(insert(ITEMS), rows)
                want(connection, sum(row["wanted"] for row in rows if row["wanted"] != EVERYBODY))
            return len(rows)

        return self.database.write(change)

    def next(self, person: int, modes: Sequence[Mode] = QUEUED) -> Handout | None:
        """The item that the person has, or a new one; None when there is none for them."""
        with self.database.read() as connection:
            held = self._held(connection, person, modes)
            if held is not None:
                return held
        return self.database.write(lambda connection: self._hand_out(connection, person, modes))

    def waits_for(self, person: int) -> bool:
        """Whether `next` may have an item for the person; nothing is handed out.

        An item whose lease has ended may be theirs, and is handed out by `next` alone. Check items are left out: they
        come among others.
        """
        now = self.clock()
        with self.database.read() as connection:
            ended = select(ASSIGNMENTS.c.item).where(ASSIGNMENTS.c.state == LEASED, ASSIGNMENTS.c.until <= now).limit(1)
            return (
                self._held(connection, person, QUEUED) is not None
                or self._open_to(connection, person, (RANDOM, ACTIVE), QUEUED, now) is not None
                or connection.execute(ended).first() is not None
            )

    def submit(self, person: int, number: int, submission: str, answer: PersonAnswer) -> int:
        """Take an answer in and return the number of its event; a submission that is known is not taken twice."""
        return self.hand_in(person, number, submission, answer).result()

    def hand_in(self, person: int, number: int, submission: str, answer: PersonAnswer) -> Future[int]:
        """The same, to be waited for."""
        return self.database.write_together(self._take_in, Submission(person, number, submission, answer))

    def skip(self, person: int, number: int, submission: str, reason: str, seconds: float = 0.0) -> int:
        """Give an item back with a reason: somebody else gets it, this person does not any more."""

        def change(connection: "Connection") -> int:
            if (known := known_event(connection, submission, person, number)) is not None:
                return known
            if self._take(connection, person, number).item.talk:
                raise Declined("a conversation is not skipped: answer, or end it")
            event = append(
                connection,
                SKIPPED,
                {"reason": reason, "seconds": seconds},
                at=self.clock(),
                person=person,
                item=number,
                submission=submission,
            )
            settle(connection, PASSED, [(person, number, event)])
            count(connection, ITEMS.c.id == number, -1)
            return event

        return self.database.write(change)

    def undo(self, person: int) -> Handout:
        """Take the last answer or skip back, and hand its item out again with what was said as the draft."""

        def change(connection: "Connection") -> Handout:
            mine = ASSIGNMENTS.c.person == person
            last = connection.execute(
                select(ASSIGNMENTS.c.item, ASSIGNMENTS.c.state, ASSIGNMENTS.c.event)
                .where(mine, ASSIGNMENTS.c.state.in_((DONE, PASSED)))
                .order_by(ASSIGNMENTS.c.event.desc())
                .limit(1)
            ).first()
            _refuse_excluded(connection, person)
            if last is None:
                raise Declined("there is nothing to take back")
            release(connection, and_(mine, ASSIGNMENTS.c.state == LEASED))
            if last.state == PASSED:
                _refuse_full(connection, last.item)
                count(connection, ITEMS.c.id == last.item, 1)
            counted = last.state == DONE and not item_numbered(connection, last.item).known
            now, fewer = self.clock(), -int(counted)
            append(connection, WITHDRAWN, {"of": last.event}, at=now, person=person, item=last.item, done=fewer)
            row = ASSIGNMENTS.c.item == last.item
            body = connection.execute(select(EVENTS.c.body).where(EVENTS.c.number == last.event)).scalar_one()
            shown = connection.execute(select(ASSIGNMENTS.c.shown).where(mine, row)).scalar_one()
            until = self.clock() + self.lease
            connection.execute(
                update(ASSIGNMENTS)
                .where(mine, row)
                .values(state=LEASED, until=until, event=0, draft=as_shown(body, shown))
            )
            held = self._held(connection, person, MODES)
            assert held is not None
            if held.item.talk:
                _rewind(connection, held)
            return held

        return self.database.write(change)

    def keep_draft(self, person: int, number: int, draft: Mapping[str, Any]) -> float:
        """Keep what is half done, and the lease with it; returns the new end of the lease."""
        until = self.clock() + self.lease

        def change(connection: "Connection") -> float:
            self._take(connection, person, number)
            connection.execute(
                update(ASSIGNMENTS)
                .where(ASSIGNMENTS.c.item == number, ASSIGNMENTS.c.person == person)
                .values(draft=dict(draft), until=until)
            )
            return until

        return self.database.write(change)

    def exposure(self, person: int) -> Exposure:
        """Whether the person may see harmful items now."""
        with self.database.read() as connection:
            return exposure_of(connection, person, self.caps, self.clock())

    def progress(self, person: int) -> dict[str, int]:
        """Answers by this person, and answers and wanted answers of all items that are no check items."""
        with self.database.read() as connection:
            mine = select(func.count()).where(ASSIGNMENTS.c.person == person, ASSIGNMENTS.c.state.in_((DONE, VOID)))
            all_ = connection.execute(select(CLOCK.c.done, CLOCK.c.wanted)).one()
            return {"mine": connection.execute(mine).scalar_one(), "done": all_.done, "wanted": all_.wanted}

    def _held(self, connection: "Connection", person: int, modes: Sequence[Mode]) -> Handout | None:
        """What the person has a lease on that has not ended."""
        row = connection.execute(
            select(ITEMS, ASSIGNMENTS.c.shown, ASSIGNMENTS.c.draft, ASSIGNMENTS.c.until)
            .join(ASSIGNMENTS, ASSIGNMENTS.c.item == ITEMS.c.id)
            .where(ASSIGNMENTS.c.person == person, ASSIGNMENTS.c.state == LEASED)
            .where(ASSIGNMENTS.c.until > self.clock(), ITEMS.c.mode.in_(modes))
            .order_by(ITEMS.c.id)
            .limit(1)
        ).first()
        if row is None:
            return None
        return handout(row)

    def _hand_out(self, connection: "Connection", person: int, modes: Sequence[Mode]) -> Handout | None:
        """A lease on the next item that the person has not had and may have."""
        now = self.clock()
        release(connection, and_(ASSIGNMENTS.c.state == LEASED, ASSIGNMENTS.c.until <= now))
        if (held := self._held(connection, person, modes)) is not None:
            return held  # two pages of the same person asked at once
        number = self._open_to(connection, person, lines_in_turn(self.selection, self._random), modes, now)
        if number is None:
            return None
        self._lease(connection, person, number)
        return self._held(connection, person, modes)

    def _open_to(
        self, connection: "Connection", person: int, lines: Iterable[str], modes: Sequence[Mode], now: float
    ) -> int | None:
        """The number of the next item that the person has not had and may have."""
        who = connection.execute(select(PEOPLE.c.tags, PEOPLE.c.excluded).where(PEOPLE.c.id == person)).one()
        if who.excluded:
            return None
        may = exposure_of(connection, person, self.caps, now).is_open
        return first_open(connection, person, lines, modes=modes, tags=who.tags, harmful=may)

    def _lease(self, connection: "Connection", person: int, number: int) -> None:
        body = connection.execute(select(ITEMS.c.body).where(ITEMS.c.id == number)).scalar_one()
        places = len(body["replies"])
        connection.execute(
            insert(ASSIGNMENTS).values(
                item=number,
                person=person,
                state=LEASED,
                until=self.clock() + self.lease,
                shown=self._random.sample(range(places), places),
                draft=None,
                event=0,
            )
        )
        count(connection, ITEMS.c.id == number, 1)

    def give(self, connection: "Connection", person: int, number: int) -> Handout:
        """An item that is one person's alone, into their hands, again where the lease had ended."""
        row = (ASSIGNMENTS.c.item == number) & (ASSIGNMENTS.c.person == person)
        if connection.execute(select(ASSIGNMENTS.c.item).where(row)).first() is None:
            self._lease(connection, person, number)
        else:
            connection.execute(update(ASSIGNMENTS).where(row).values(until=self.clock() + self.lease))
        return self._take(connection, person, number)

    def _take_in(self, connection: "Connection", given: Sequence[Submission]) -> list[int | Declined]:
        return take_in(connection, given, at=self.clock(), rule=self.selection.rule)

    def _take(self, connection: "Connection", person: int, number: int) -> Handout:
        """The item in this person's hands. Raises Declined where they have it not, or not any more."""
        return in_hand(given_to(connection, [(person, number)]).get((person, number)))

    def item_row(self, item: Item) -> dict[str, Any]:
        """A new item as a row, in its line."""
        queue, place = line_of(item, self.selection.random, self._random)
        return {
            "hash": item.id,
            "mode": item.mode,
            "body": item_to_json(item),
            "tag": item.tag,
            "wanted": EVERYBODY if item.known else item.overlap,
            "taken": 0,
            "open": True,
            "harmful": item.harmful,
            "queue": queue,
            "place": place,
        }


def want(connection: "Connection", more: int) -> None:
    """Count how many answers are wanted in all."""
    connection.execute(update(CLOCK).values(wanted=CLOCK.c.wanted + more))


def _rewind(connection: "Connection", held: Handout) -> None:
    """Go back in a conversation to the turn that was taken back; what was written after it is a draft again."""
    here = TALKS.c.id == int(held.item.talk.partition("/")[2])
    talk = connection.execute(select(TALKS.c.item, TALKS.c.text).where(here)).one()
    text = talk.text
    if talk.item != held.number:
        later = connection.execute(select(ITEMS.c.mode, ITEMS.c.body).where(ITEMS.c.id == talk.item)).one()
        text = later.body["prompt"][-1][1] if later.mode in LIVE else text
        nobodys = (ITEMS.c.id == talk.item) & (ITEMS.c.taken == 0)
        left = connection.execute(update(ITEMS).where(nobodys).values(wanted=0, open=False))
        want(connection, -left.rowcount)
    connection.execute(update(TALKS).where(here).values(item=held.number, text=text, waiting=False, problem=""))


def as_shown(body: Mapping[str, Any], shown: Sequence[int]) -> dict[str, Any]:
    """An event's body as the page wrote it, with ranks by place."""
    draft = {key: value for key, value in body.items() if key not in ("order", "group", "reason", "aided")}
    if "choices" in draft:
        draft["choices"] = {
            criterion: {**choice, "ranks": [choice["ranks"][reply] for reply in shown]}
            for criterion, choice in body["choices"].items()
        }
    return draft


def _refuse_excluded(connection: "Connection", person: int) -> None:
    if connection.execute(select(PEOPLE.c.excluded).where(PEOPLE.c.id == person)).scalar_one():
        raise Declined("excluded")  # key of the words


def _refuse_full(connection: "Connection", number: int) -> None:
    if not connection.execute(select(ITEMS.c.open).where(ITEMS.c.id == number)).scalar_one():
        raise Declined("others have answered this question meanwhile")
