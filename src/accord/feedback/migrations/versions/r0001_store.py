"""The store as it began."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Tables in the order in which they refer to each other, and the clock at nothing."""
    clock = op.create_table(
        "clock", sa.Column("id", sa.Integer, primary_key=True), sa.Column("number", sa.BigInteger, nullable=False)
    )
    op.bulk_insert(clock, [{"id": 1, "number": 0}])
    op.create_table(
        "people",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(80), unique=True),
        sa.Column("password", sa.String(200)),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("value_group", sa.String(40), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("joined", sa.Double, nullable=False),
    )
    op.create_table(
        "invites",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("value_group", sa.String(40), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), nullable=False, index=True),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("hash", sa.String(16), nullable=False, unique=True),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("tag", sa.String(40), nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("taken", sa.Integer, nullable=False),
        sa.Column("open", sa.Boolean, nullable=False),
    )
    op.create_index("items_in_turn", "items", ["open", "mode", "id"])
    op.create_table(
        "assignments",
        sa.Column("item", sa.Integer, sa.ForeignKey("items.id"), primary_key=True),
        sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("shown", sa.JSON, nullable=False),
        sa.Column("draft", sa.JSON),
        sa.Column("event", sa.BigInteger, nullable=False),
    )
    op.create_index("assignments_of_a_person", "assignments", ["person", "state", "event"])
    op.create_index("assignments_that_end", "assignments", ["state", "until"])
    op.create_table(
        "events",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("submission", sa.String(64), unique=True),
        sa.Column("item", sa.Integer, sa.ForeignKey("items.id"), index=True),
        sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), index=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Tables in the order in which nothing refers to what goes."""
    for table in ("events", "assignments", "items", "sessions", "invites", "people", "clock"):
        op.drop_table(table)
