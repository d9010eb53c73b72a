"""What alembic runs for each command: the connection comes from who calls, see __init__.py."""

from alembic import context

from tools.platform.tables import meta

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=meta,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
