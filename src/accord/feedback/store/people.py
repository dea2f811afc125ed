"""People: how they join, come back, and are forgotten. Secrets are kept as hashes alone.

A label hangs on a person's number and never on their name: when the name is deleted, what they said stays.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import bindparam, delete, insert, select, update

from accord.feedback.store import checks
from accord.feedback.store.assignments import LEASED, Declined, release
from accord.feedback.store.database import Database
from accord.feedback.store.events import ADMINISTRATION, append
from accord.feedback.store.schema import ASSIGNMENTS, EVENTS, INVITES, PEOPLE, SESSIONS, TALKS

if TYPE_CHECKING:
    from sqlalchemy import Connection

Role = Literal["annotator", "reviewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
DAY = 86_400.0
SESSION, INVITE = 30 * DAY, 14 * DAY
PASSWORD_LENGTHS = range(10, 201)  # characters
WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# what every request asks for, built once
_PERSON = select(*(PEOPLE.c[name] for name in ("id", "name", "role", "value_group", "tags", "opted_out", "excluded")))
_SESSION = _PERSON.join(SESSIONS, SESSIONS.c.person == PEOPLE.c.id).where(
    SESSIONS.c.token == bindparam("of_token"), SESSIONS.c.until > bindparam("now")
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who is there. `name` is empty once they asked to be forgotten."""

    id: int
    name: str
    role: Role
    value_group: str
    tags: tuple[str, ...]
    opted_out: bool = False  # of harmful items
    excluded: bool = False  # is asked nothing more

    def may(self, role: Role) -> bool:
        """Whether they may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class People:
    """Invites, accounts, sessions. `clock` gives the seconds since 1970."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        from argon2 import PasswordHasher

        self.database, self.clock, self._hasher = database, clock, PasswordHasher()
        # checked where a name is unknown, so that the answer takes as long as for one that is known
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def invite(self, role: Role, *, by: int | None, group: str = "", tags: Sequence[str] = (), uses: int = 1) -> str:
        """A token by which `uses` people can join, for two weeks. Raises Declined for a group or tag that is no word.

        `by` is the admin, None for whoever started the server.
        """
        for word in (*tags, *([group] if group else [])):
            if not WORD.fullmatch(word):
                raise Declined(f"{word!r}: groups and tags are of small letters, digits, - and _")
        token = secrets.token_urlsafe(24)
        values = {"role": role, "value_group": group, "tags": list(tags), "uses": uses}

        def change(connection: "Connection") -> None:
            until = self.clock() + INVITE
            connection.execute(insert(INVITES).values(token=_hash(token), until=until, **values))
            append(connection, ADMINISTRATION, {"did": "invite", **values}, at=self.clock(), person=by)

        self.database.write(change)
        return token

    def join(self, token: str, name: str, password: str) -> str:
        """A new person by an invite, and the session they begin. Raises Declined."""
        name = " ".join(name.split())
        if not 0 < len(name) <= 80 or not name.isprintable():
            raise Declined("a name has 1 to 80 letters")
        if len(password) not in PASSWORD_LENGTHS:
            raise Declined(f"a password has {PASSWORD_LENGTHS[0]} to {PASSWORD_LENGTHS[-1]} letters")
        hashed = self._hasher.hash(password)

        def change(connection: "Connection") -> str:
            found = connection.execute(select(INVITES).where(INVITES.c.token == _hash(token))).first()
            if found is None or found.uses < 1 or found.until <= self.clock():
                raise Declined("this invitation is used up or too old; ask for a new one")
            if connection.execute(select(PEOPLE.c.id).where(PEOPLE.c.name == name)).first():
                raise Declined("somebody has this name; choose another")
            connection.execute(update(INVITES).where(INVITES.c.token == found.token).values(uses=found.uses - 1))
            made = connection.execute(
                insert(PEOPLE).values(
                    name=name,
                    password=hashed,
                    role=found.role,
                    value_group=found.value_group,
                    tags=found.tags,
                    joined=self.clock(),
                )
            )
            return self._begin(connection, _first(made.inserted_primary_key))

        return self.database.write(change)

    def log_in(self, name: str, password: str) -> str:
        """A new session of somebody who has joined. Raises Declined, without saying what was wrong."""
        from argon2.exceptions import Argon2Error

        with self.database.read() as connection:
            asked = select(PEOPLE.c.id, PEOPLE.c.password).where(PEOPLE.c.name == " ".join(name.split()))
            found = connection.execute(asked).first()
        try:
            self._hasher.verify(found.password if found else self._nobody, password)
        except Argon2Error:
            found = None
        if found is None:
            raise Declined("name or password is wrong")
        return self.database.write(lambda connection: self._begin(connection, found.id))

    def log_out(self, session: str) -> None:
        """End a session; one that is none is no matter."""
        self.database.write(
            lambda connection: connection.execute(delete(SESSIONS).where(SESSIONS.c.token == _hash(session))).rowcount
        )

    def of_session(self, session: str) -> Person | None:
        """Whose session it is; None where it has ended."""
        row = self.database.read_row(_SESSION, {"of_token": _hash(session), "now": self.clock()})
        return None if row is None else _person(row)

    def all(self) -> list[Person]:
        """Everybody who has joined, in that order."""
        with self.database.read() as connection:
            return [_person(row) for row in connection.execute(_PERSON.order_by(PEOPLE.c.id))]

    def set_role(self, person: int, role: Role, *, by: int) -> None:
        """Change what somebody may do. Raises Declined for oneself: an admin cannot lock the last door from inside."""
        if person == by:
            raise Declined("nobody changes their own role")

        def change(connection: "Connection") -> None:
            done = connection.execute(update(PEOPLE).where(PEOPLE.c.id == person).values(role=role))
            if not done.rowcount:
                raise Declined("there is no such person")
            body = {"did": "role", "of": person, "role": role}
            append(connection, ADMINISTRATION, body, at=self.clock(), person=by)

        self.database.write(change)

    def set_excluded(self, person: int, excluded: bool, *, by: int) -> None:
        """Exclude somebody, or readmit them (`store/checks.py`). Raises Declined where that is so already."""

        def change(connection: "Connection") -> None:
            now = connection.execute(select(PEOPLE.c.excluded).where(PEOPLE.c.id == person)).scalar()
            if now is None or now is excluded:
                raise Declined("there is no such person" if now is None else "that is so already")
            (checks.exclude if excluded else checks.readmit)(connection, person, at=self.clock(), by=by)

        self.database.write(change)

    def opt_out(self, person: int, out: bool) -> None:
        """Whether somebody wants no harmful items."""
        chosen = update(PEOPLE).where(PEOPLE.c.id == person).values(opted_out=out)
        self.database.write(lambda connection: connection.execute(chosen).rowcount)

    def export(self, person: int) -> dict[str, Any]:
        """All that the store holds about a person, for JSON."""
        with self.database.read() as connection:
            row = connection.execute(select(PEOPLE).where(PEOPLE.c.id == person)).one()._asdict()
            events = select(EVENTS).where(EVENTS.c.person == person).order_by(EVENTS.c.number)
            held = select(ASSIGNMENTS).where(ASSIGNMENTS.c.person == person).order_by(ASSIGNMENTS.c.item)
            talks = select(TALKS).where(TALKS.c.person == person).order_by(TALKS.c.id)
            return {
                "person": {key: value for key, value in row.items() if key != "password"},
                "events": [event._asdict() for event in connection.execute(events)],
                "assignments": [row._asdict() for row in connection.execute(held)],
                "talks": [row._asdict() for row in connection.execute(talks)],
            }

    def forget(self, person: int, *, by: int) -> None:
        """Delete what says who a person is, their sessions and what they hold; what they said stays, under a number."""

        def change(connection: "Connection") -> None:
            done = connection.execute(
                update(PEOPLE)
                .where(PEOPLE.c.id == person)
                .values(name=None, password=None, role="annotator", value_group="", tags=[])
            )
            if not done.rowcount:
                raise Declined("there is no such person")
            connection.execute(delete(SESSIONS).where(SESSIONS.c.person == person))
            release(connection, (ASSIGNMENTS.c.person == person) & (ASSIGNMENTS.c.state == LEASED))
            unsent = {"text": "", "waiting": False, "over": True}
            connection.execute(update(TALKS).where(TALKS.c.person == person).values(**unsent))
            append(connection, ADMINISTRATION, {"did": "forget", "of": person}, at=self.clock(), person=by)

        self.database.write(change)

    def _begin(self, connection: "Connection", person: int) -> str:
        session = secrets.token_urlsafe(32)
        connection.execute(delete(SESSIONS).where(SESSIONS.c.until <= self.clock()))
        values = {"token": _hash(session), "person": person, "until": self.clock() + SESSION}
        connection.execute(insert(SESSIONS).values(**values))
        return session


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).hexdigest()


def _first(key: Any) -> int:
    return int(key[0])


def _person(row: Any) -> Person:
    return Person(row.id, row.name or "", row.role, row.value_group, tuple(row.tags), row.opted_out, row.excluded)
