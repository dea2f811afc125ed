"""How much harmful text one person sees: a cap for a day, a break after several in a row, none for who wants none."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlalchemy import select

from accord.feedback.store.events import ANSWERED, SKIPPED
from accord.feedback.store.schema import EVENTS, ITEMS, PEOPLE

if TYPE_CHECKING:
    from sqlalchemy import Connection

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Caps:
    """Of harmful items: how many in 24 hours, and how many in a row before a break of `pause` seconds. 0: no cap.

    Items are in a row where less than `pause` lies between each and the next.
    """

    a_day: int = 0
    in_a_row: int = 0
    pause: float = 900.0


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class Exposure:
    """Whether somebody asked for no harmful text, and until when (seconds since 1970) a cap keeps it away; 0: none."""

    opted_out: bool
    until: float

    @property
    def is_open(self) -> bool:
        """Whether harmful items may be shown now."""
        return not self.opted_out and not self.until


def exposure_of(connection: "Connection", person: int, caps: Caps, now: float) -> Exposure:
    """Where somebody stands at `now`. What was skipped or taken back was seen all the same."""
    opted_out = connection.execute(select(PEOPLE.c.opted_out).where(PEOPLE.c.id == person)).scalar_one()
    most = max(caps.a_day, caps.in_a_row)
    if not most:
        return Exposure(opted_out, 0.0)
    seen = (
        select(EVENTS.c.at)
        .join(ITEMS, ITEMS.c.id == EVENTS.c.item)
        .where(EVENTS.c.person == person, EVENTS.c.kind.in_((ANSWERED, SKIPPED)))
        .where(EVENTS.c.at > now - DAY, ITEMS.c.harmful.is_(True))
        .order_by(EVENTS.c.number.desc())
        .limit(most)
    )
    times = list(connection.execute(seen).scalars())  # the newest first
    until = 0.0
    if caps.a_day and len(times) >= caps.a_day:
        until = times[caps.a_day - 1] + DAY
    row = times[: caps.in_a_row] if len(times) >= caps.in_a_row else []
    if row and now - row[0] < caps.pause and all(b - a < caps.pause for b, a in pairwise(row)):
        until = max(until, row[0] + caps.pause)
    return Exposure(opted_out, until)
