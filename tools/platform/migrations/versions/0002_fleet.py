"""
Gradual roll-outs, operators with their sessions, tokens, and indexes for many tasks.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _column(name, kind, **options):
    return sa.Column(name, kind, **{"nullable": False, **options})


def upgrade():
    """Batches and tasks that are there have one wave, which is open."""
    zero, text = sa.text("0"), sa.Text
    for column in (
        _column("why", text, server_default=""),
        _column("shares", text, server_default="100"),
        _column("failures", _number, server_default=sa.text("100")),
        _column("wave", _number, server_default=zero),
    ):
        op.add_column("batches", column)
    op.add_column("tasks", _column("wave", _number, server_default=zero))
    op.create_index("tasks_of_device", "tasks", ["product", "identifier"])
    due = sa.text("due IS NOT NULL")
    op.create_index("tasks_due", "tasks", ["due"], sqlite_where=due, postgresql_where=due)
    op.create_table(
        "operators",
        _column("name", text, primary_key=True),
        _column("password", text),
    )
    op.create_table(
        "sessions",
        _column("id", text, primary_key=True),
        _column("operator", text),
        _column("csrf", text),
        _column("ends", sa.Double),
    )
    op.create_table(
        "tokens",
        _column("name", text, primary_key=True),
        _column("digest", text, unique=True),
        _column("created", sa.Double),
    )
