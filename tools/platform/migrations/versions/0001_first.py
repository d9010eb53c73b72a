"""
The tables of the releases before there were migrations, whichever of their columns a file has.
"""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _column(name, kind, *more, **options):
    return sa.Column(name, kind, *more, **{"nullable": False, **options})


def upgrade():
    """Makes what is missing."""
    look = sa.inspect(op.get_bind())
    there = set(look.get_table_names())
    for name, parts in _tables().items():
        if name not in there:
            op.create_table(name, *parts)
            continue
        columns = {column["name"] for column in look.get_columns(name)}
        for part in parts:
            if isinstance(part, sa.Column) and part.name not in columns:
                op.add_column(name, part)
    if "events" not in there:
        op.create_index("events_of_device", "events", ["product", "identifier", "id"])


def _tables():
    text, time, zero = sa.Text, sa.Double, sa.text("0")
    return {
        "products": [
            _column("key", text, primary_key=True),
            _column("name", text),
            _column("signed", sa.Boolean, server_default=sa.false()),
        ],
        "devices": [
            _column("product", text, sa.ForeignKey("products.key"), primary_key=True),
            _column("identifier", text, primary_key=True, unique=True),
            _column("secret", text),
            _column("name", text),
            _column("version", text),
            _column("seen", time, nullable=True),
        ],
        "firmware": [
            _column("id", _number, primary_key=True),
            _column("product", text, sa.ForeignKey("products.key")),
            _column("name", text, unique=True),
            _column("version", text),
            _column("file", text),
            _column("size", _number),
            _column("sign", text),
            _column("uploaded", time),
            _column("manifest", text, server_default=""),
            _column("signature", text, server_default=""),
            _column("sequence", _number, server_default=zero),
        ],
        "batches": [
            _column("id", _number, primary_key=True),
            _column("firmware", _number, sa.ForeignKey("firmware.id")),
            _column("policy", text),
            _column("timeout_s", time),
            _column("retries", _number),
            _column("interval_s", time),
            _column("created", time),
            _column("ends", time),
            _column("token", text),
            _column("aborted", sa.Boolean),
        ],
        "tasks": [
            _column("batch", _number, sa.ForeignKey("batches.id"), primary_key=True),
            _column("product", text, primary_key=True),
            _column("identifier", text, primary_key=True),
            _column("status", text),
            _column("progress", _number),
            _column("remark", text),
            _column("code", _number, nullable=True),
            _column("message", text),
            _column("attempt", _number),
            _column("due", time, nullable=True),
            _column("asked", text),
            _column("outcome", text),
            sa.ForeignKeyConstraint(
                ["product", "identifier"], ["devices.product", "devices.identifier"]
            ),
        ],
        "events": [
            _column("id", _number, primary_key=True),
            _column("time", time),
            _column("product", text),
            _column("identifier", text),
            _column("batch", _number, nullable=True),
            _column("kind", text),
            _column("text", text),
        ],
        "settings": [_column("key", text, primary_key=True), _column("value", text)],
    }
