"""Run by alembic: the connection is handed over, nothing is configured elsewhere."""

from alembic import context

from sigmagraph.engine.jobs.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite cannot alter most things in place
)
with context.begin_transaction():
    context.run_migrations()
