"""Which items are harmful to read, and who wants none of them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """A column each; of what was there before nothing is known to be harmful."""
    op.add_column("items", sa.Column("harmful", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("people", sa.Column("opted_out", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Nothing refers to them."""
    op.drop_column("people", "opted_out")
    op.drop_column("items", "harmful")
