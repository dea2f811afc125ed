"""In which line items wait, who is excluded, and how far the work is, counted as it goes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """What was there before waits as it did; the counts are taken once."""
    op.add_column("items", sa.Column("queue", sa.String(10), nullable=False, server_default="random"))
    op.add_column("items", sa.Column("place", sa.Double, nullable=False, server_default="0"))
    op.execute("UPDATE items SET queue = 'talk' WHERE mode IN ('chat', 'redteam', 'rate')")
    op.drop_index("items_in_turn", "items")
    op.create_index("items_in_turn", "items", ["queue", "open", "harmful", "tag", "place", "id"])
    op.add_column("people", sa.Column("excluded", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("events_of_a_kind", "events", ["kind", "number"])
    op.add_column("clock", sa.Column("wanted", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("clock", sa.Column("done", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE clock SET wanted = (SELECT COALESCE(SUM(wanted), 0) FROM items)")
    op.execute("UPDATE clock SET done = (SELECT COUNT(*) FROM assignments WHERE state = 'answered')")


def downgrade() -> None:
    """Nothing refers to them."""
    op.drop_column("clock", "done")
    op.drop_column("clock", "wanted")
    op.drop_index("events_of_a_kind", "events")
    op.drop_column("people", "excluded")
    op.drop_index("items_in_turn", "items")
    op.create_index("items_in_turn", "items", ["open", "mode", "id"])
    op.drop_column("items", "place")
    op.drop_column("items", "queue")
