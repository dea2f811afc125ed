"""Conversations in which two live replies are shown at every turn, and the chosen one goes on.

The protocol of Bai et al. 2022, "Training a Helpful and Harmless Assistant" (arXiv:2204.05862), section 2.2. A turn is
an item with the conversation so far as its prompt, handed to the one who leads it and to nobody else; a conversation
ends with a rating, which is an item too. So both are answered, taken back and read like every other item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, insert, select, update

from accord.feedback.store.answers import LONGEST, chosen_of
from accord.feedback.store.assignments import DONE, LEASED, Declined, Handout
from accord.feedback.store.desk import Desk, want
from accord.feedback.store.exposure import exposure_of
from accord.feedback.store.questions import Item, Live, Picks, item_from_json
from accord.feedback.store.schema import ASSIGNMENTS, EVENTS, ITEMS, TALKS
from accord.records import Prompt, Turn

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

SLICES: dict[Live, str] = {"chat": "chat", "redteam": "red-team"}
RATED: dict[Live, str] = {"chat": "conversation", "redteam": "attack"}  # under what the end is rated, from 0 to 4
HARMFUL: tuple[Live, ...] = ("redteam",)  # whoever leads such a conversation is meant to read what does harm
BREAK = "a_break"  # key of the words
Reply = tuple[str, str]  # its text, and where it came from


@dataclass(frozen=True, slots=True)
class LiveQuestion:
    """What is asked about two live replies."""

    criteria: tuple[str, ...]
    picks: Picks = "better"


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation as it stands. `turns` were said and chosen; `held` is what is to be answered before it goes on."""

    number: int
    turns: tuple[Turn, ...]
    held: Handout | None
    text: str
    waiting: bool
    problem: str


class Talks:
    """The conversations of a desk, of each mode in `questions`."""

    def __init__(self, desk: Desk, questions: Mapping[Live, LiveQuestion]) -> None:
        self.desk, self.questions = desk, questions

    def look(self, person: int, mode: Live) -> Talk | None:
        """Where the person's conversation stands, its turn in their hands; None where there is none."""

        def change(connection: "Connection") -> Talk | None:
            talk = _going_on(connection, person, mode)
            if talk is None:
                return None
            held = None
            if talk.item is not None and talk.state != DONE:
                held = self.desk.give(connection, person, talk.item)
            turns = held.item.prompt.turns if held else _turns(connection, talk)
            return Talk(talk.id, turns, held, talk.text, talk.waiting, talk.problem)

        return self.desk.database.write(change)

    def write(self, person: int, mode: Live, text: str, *, send: bool) -> int:
        """Keep what the person writes next, to `send` it or as a draft; returns the conversation's number.

        Raises Declined where it is not their turn. What is sent twice waits once.
        """
        if len(text) > LONGEST or (send and not text.strip()):
            raise Declined(f"write 1 to {LONGEST} letters")
        text = text.replace("\0", "\ufffd")  # as a browser shows it; PostgreSQL takes none

        def change(connection: "Connection") -> int:
            talk = _going_on(connection, person, mode)
            if talk is not None and talk.waiting:
                if send and text == talk.text:
                    return int(talk.id)
                raise Declined("replies to what you wrote before are on their way")
            _refuse_unanswered(talk)
            now = exposure_of(connection, person, self.desk.caps, self.desk.clock())
            if send and mode in HARMFUL and not now.is_open:
                raise Declined(BREAK)
            said = {"text": text, "waiting": send, "problem": ""}
            if talk is None:
                values = {"person": person, "mode": mode, "item": None, "over": False, **said}
                made = connection.execute(insert(TALKS).values(**values)).inserted_primary_key
                return int(made[0]) if made else 0
            connection.execute(update(TALKS).where(TALKS.c.id == talk.id).values(**said))
            return int(talk.id)

        return self.desk.database.write(change)

    def waiting(self, person: int, mode: Live) -> int:
        """The number of the person's conversation that waits for replies; 0 where none does."""
        with self.desk.database.read() as connection:
            talk = _going_on(connection, person, mode)
            return int(talk.id) if talk is not None and talk.waiting else 0

    def asked(self, number: int) -> tuple[Turn, ...]:
        """What replies are due to; empty where nothing waits."""
        with self.desk.database.read() as connection:
            return _asked(connection, _numbered(connection, number))

    def put(self, number: int, turns: Sequence[Turn], replies: Sequence[Reply]) -> bool:
        """Show two replies to `turns`, and whether these were still waited for."""

        def change(connection: "Connection") -> bool:
            talk = _numbered(connection, number)
            if talk is None or _asked(connection, talk) != tuple(turns):
                return False
            question = self.questions[talk.mode]
            texts, origins = zip(*replies, strict=True)
            prompt = Prompt(tuple(turns), SLICES[talk.mode], f"people: {talk.mode}")
            asked = Item(talk.mode, prompt, texts, question.criteria, origins)
            of = replace(asked, talk=_name(talk), picks=question.picks, harmful=talk.mode in HARMFUL)
            self._show(connection, talk, of.check())
            return True

        return self.desk.database.write(change)

    def fail(self, number: int, problem: str) -> None:
        """Give what waits back to the one who wrote it, with what went wrong."""
        waits = (TALKS.c.id == number) & TALKS.c.waiting.is_(True)
        values = {"waiting": False, "problem": problem}
        self.desk.database.write(lambda connection: connection.execute(update(TALKS).where(waits).values(**values)))

    def end(self, person: int, mode: Live) -> None:
        """End the conversation: its rating is shown, or, where no reply was chosen, nothing more. Raises Declined."""

        def change(connection: "Connection") -> None:
            talk = _going_on(connection, person, mode)
            if talk is None:
                raise Declined("there is no conversation to end")
            _refuse_unanswered(talk)
            if talk.item is None:
                values = {"over": True, "waiting": False}
                connection.execute(update(TALKS).where(TALKS.c.id == talk.id).values(**values))
                return
            last, body = _last(connection, talk)
            chosen = chosen_of(last, body)
            reply, origin = last.replies[chosen], last.origins[chosen]
            rating = Item("rate", last.prompt, (reply,), (RATED[mode],), (origin,), talk=_name(talk))
            self._show(connection, talk, rating.check())

        self.desk.database.write(change)

    def _show(self, connection: "Connection", talk: "Row[Any]", item: Item) -> None:
        """Hand an item to the one who leads the conversation; one that was shown before and taken back is known."""
        known = connection.execute(select(ITEMS.c.id, ITEMS.c.wanted).where(ITEMS.c.hash == item.id)).first()
        if known is not None:
            number = known.id
            connection.execute(update(ITEMS).where(ITEMS.c.id == number).values(wanted=1))
        else:
            made = connection.execute(insert(ITEMS).values(**self.desk.item_row(item))).inserted_primary_key
            number = made[0] if made else 0
        want(connection, 1 - (known.wanted if known is not None else 0))
        values = {"item": number, "text": "", "waiting": False, "problem": ""}
        connection.execute(update(TALKS).where(TALKS.c.id == talk.id).values(**values))
        self.desk.give(connection, talk.person, number)


def _of(which: Any) -> Any:
    """Conversations that may go on, each with the state of its last item in the hands of the one who leads it."""
    return (
        select(TALKS, ASSIGNMENTS.c.state, ASSIGNMENTS.c.event, ITEMS.c.mode.label("shown"))
        .outerjoin(ASSIGNMENTS, (ASSIGNMENTS.c.item == TALKS.c.item) & (ASSIGNMENTS.c.person == TALKS.c.person))
        .outerjoin(ITEMS, ITEMS.c.id == TALKS.c.item)
        .where(which, TALKS.c.over.is_(False))
    )


def _going_on(connection: "Connection", person: int, mode: Live) -> "Row[Any] | None":
    """The conversation whose turn is to be answered, else the newest; None where that one was rated."""
    mine = _of((TALKS.c.person == person) & (TALKS.c.mode == mode))
    held_first = case((ASSIGNMENTS.c.state == LEASED, 0), else_=1)
    talk = connection.execute(mine.order_by(held_first, TALKS.c.id.desc()).limit(1)).first()
    return None if talk is not None and talk.shown == "rate" and talk.state == DONE else talk


def _numbered(connection: "Connection", number: int) -> "Row[Any] | None":
    return connection.execute(_of(TALKS.c.id == number)).first()


def _refuse_unanswered(talk: "Row[Any] | None") -> None:
    if talk is not None and talk.item is not None and talk.state != DONE:
        raise Declined("answer what is on the page first")


def _last(connection: "Connection", talk: "Row[Any]") -> tuple[Item, Mapping[str, Any]]:
    """The turn that was answered last, and the answer."""
    row = connection.execute(select(ITEMS.c.mode, ITEMS.c.body).where(ITEMS.c.id == talk.item)).one()
    answer = connection.execute(select(EVENTS.c.body).where(EVENTS.c.number == talk.event)).scalar_one()
    return item_from_json(row.mode, row.body), answer


def _turns(connection: "Connection", talk: "Row[Any]") -> tuple[Turn, ...]:
    """What was said and chosen, up to the last choice."""
    if talk.item is None:
        return ()
    last, answer = _last(connection, talk)
    return (*last.prompt.turns, Turn("assistant", last.replies[chosen_of(last, answer)]))


def _asked(connection: "Connection", talk: "Row[Any] | None") -> tuple[Turn, ...]:
    """The conversation with what waits for replies at its end; empty where nothing does."""
    if talk is None or not talk.waiting:
        return ()
    return (*_turns(connection, talk), Turn("user", talk.text))


def _name(talk: "Row[Any]") -> str:
    """As items name it."""
    return f"{talk.mode}/{talk.id}"
