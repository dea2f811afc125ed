"""Alembic runs the migrations on the connection that `accord.feedback.store.database` hands it."""

from alembic import context

from accord.feedback.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
