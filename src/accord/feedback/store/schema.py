"""The tables. `migrations/versions/` makes them; a test compares the two.

`events` is the truth and only grows: an answer that is taken back stands there with the event that took it back.
`assignments`, `items.taken` and the counts of `clock` say how things stand now, and could be made again from the events
and the leases.
Times are seconds since 1970.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)

METADATA = MetaData()

# the number of the newest event: its row is locked by every writer first, so that numbers are given in the order of
# commits and without gaps, and "all up to N" never changes afterwards
CLOCK = Table(
    "clock",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    # how far the work is, counted as it goes: a sum over a million items would take a second for every page
    Column("wanted", BigInteger, nullable=False, server_default="0"),
    Column("done", BigInteger, nullable=False, server_default="0"),
)

PEOPLE = Table(
    "people",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), unique=True),  # null once the person asked to be forgotten
    Column("password", String(200)),
    Column("role", String(20), nullable=False),
    Column("value_group", String(40), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("joined", Double, nullable=False),
    Column("opted_out", Boolean, nullable=False, server_default=false()),  # of harmful items
    Column("excluded", Boolean, nullable=False, server_default=false()),  # answered check items wrongly
)

INVITES = Table(
    "invites",
    METADATA,
    Column("token", String(64), primary_key=True),  # SHA-256 of what the link holds
    Column("role", String(20), nullable=False),
    Column("value_group", String(40), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("uses", Integer, nullable=False),  # how many may still join by it
    Column("until", Double, nullable=False),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("token", String(64), primary_key=True),  # SHA-256 of the cookie
    Column("person", Integer, ForeignKey("people.id"), nullable=False, index=True),
    Column("until", Double, nullable=False),
)

ITEMS = Table(
    "items",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("hash", String(16), nullable=False, unique=True),
    Column("mode", String(20), nullable=False),
    Column("body", JSON, nullable=False),
    Column("tag", String(40), nullable=False),  # expertise that it asks for, empty: none
    Column("wanted", Integer, nullable=False),  # how many different people are to answer
    Column("taken", Integer, nullable=False),  # how many have answered or hold a lease
    Column("open", Boolean, nullable=False),  # taken < wanted, for the index
    Column("harmful", Boolean, nullable=False, server_default=false()),  # to whoever reads it
    Column("queue", String(10), nullable=False, server_default="random"),  # in which line it waits: selection.py
    Column("place", Double, nullable=False, server_default="0"),  # in that line, the least first
    Index("items_in_turn", "queue", "open", "harmful", "tag", "place", "id"),
)

ASSIGNMENTS = Table(
    "assignments",
    METADATA,
    Column("item", Integer, ForeignKey("items.id"), primary_key=True),
    Column("person", Integer, ForeignKey("people.id"), primary_key=True),
    Column("state", String(10), nullable=False),  # leased, answered, skipped or void
    Column("until", Double, nullable=False),  # end of the lease
    Column("shown", JSON, nullable=False),  # numbers of the replies in the order they are shown in
    Column("draft", JSON),
    Column("event", BigInteger, nullable=False),  # that answered or skipped it, 0: none
    Index("assignments_of_a_person", "person", "state", "event"),
    Index("assignments_that_end", "state", "until"),
)

TALKS = Table(
    "talks",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("person", Integer, ForeignKey("people.id"), nullable=False),
    Column("mode", String(20), nullable=False),
    Column("item", Integer, ForeignKey("items.id")),  # the turn that was shown last, or the rating
    Column("text", Text, nullable=False),  # what the person writes next
    Column("waiting", Boolean, nullable=False),  # whether it was sent, and waits for replies
    Column("problem", Text, nullable=False),  # why there were none
    Column("over", Boolean, nullable=False),  # ended before anything could be rated
    Index("talks_of_a_person", "person", "mode", "id"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(20), nullable=False),
    Column("submission", String(64), unique=True),  # made by the client, so that a repeated request is known again
    Column("item", Integer, ForeignKey("items.id"), index=True),
    Column("person", Integer, ForeignKey("people.id"), index=True),
    Column("at", Double, nullable=False),
    Column("body", JSON, nullable=False),
    Index("events_of_a_kind", "kind", "number"),
)
