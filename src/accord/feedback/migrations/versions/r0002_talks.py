"""Conversations with live replies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A table of who talks, where a conversation stands and what waits for replies."""
    op.create_table(
        "talks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("item", sa.Integer, sa.ForeignKey("items.id")),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("waiting", sa.Boolean, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("over", sa.Boolean, nullable=False),
    )
    op.create_index("talks_of_a_person", "talks", ["person", "mode", "id"])


def downgrade() -> None:
    """Nothing refers to it."""
    op.drop_table("talks")
