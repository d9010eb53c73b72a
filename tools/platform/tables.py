"""
The tables of the data base, as they are now. How an older one becomes this: migrations/versions/.
"""

import sqlalchemy as sa

from tools.platform.model import Batch, Device, Firmware, Operator, Product, Session, Task, Token

meta = sa.MetaData()
_text, _time = sa.Text, sa.Double
# SQLite counts up by itself in a column of exactly this type.
_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _column(name, kind, *more, **options):
    options.setdefault("nullable", False)
    return sa.Column(name, kind, *more, **options)


products = sa.Table(
    "products",
    meta,
    _column("key", _text, primary_key=True),
    _column("name", _text),
    _column("signed", sa.Boolean, server_default=sa.false()),
)
devices = sa.Table(
    "devices",
    meta,
    _column("product", _text, sa.ForeignKey("products.key"), primary_key=True),
    # The MQTT client id is the identifier alone, so two products cannot share one.
    _column("identifier", _text, primary_key=True, unique=True),
    _column("secret", _text),
    _column("name", _text),
    _column("version", _text),
    _column("seen", _time, nullable=True),
)
firmware = sa.Table(
    "firmware",
    meta,
    _column("id", _number, primary_key=True),
    _column("product", _text, sa.ForeignKey("products.key")),
    _column("name", _text, unique=True),
    _column("version", _text),
    _column("file", _text),
    _column("size", _number),
    _column("sign", _text),
    _column("uploaded", _time),
    _column("manifest", _text, server_default=""),
    _column("signature", _text, server_default=""),
    _column("sequence", _number, server_default=sa.text("0")),
    _column("removed", sa.Boolean, server_default=sa.false()),
)
batches = sa.Table(
    "batches",
    meta,
    _column("id", _number, primary_key=True),
    _column("firmware", _number, sa.ForeignKey("firmware.id")),
    _column("policy", _text),
    _column("timeout_s", _time),
    _column("retries", _number),
    _column("interval_s", _time),
    _column("created", _time),
    _column("ends", _time),
    _column("token", _text),
    _column("aborted", sa.Boolean),
    _column("why", _text, server_default=""),
    _column("shares", _text, server_default="100"),
    _column("failures", _number, server_default=sa.text("100")),
    _column("wave", _number, server_default=sa.text("0")),
)
tasks = sa.Table(
    "tasks",
    meta,
    _column("batch", _number, sa.ForeignKey("batches.id"), primary_key=True),
    _column("product", _text, primary_key=True),
    _column("identifier", _text, primary_key=True),
    _column("status", _text),
    _column("progress", _number),
    _column("remark", _text),
    _column("code", _number, nullable=True),
    _column("message", _text),
    _column("attempt", _number),
    _column("due", _time, nullable=True),
    _column("asked", _text),
    _column("outcome", _text),
    _column("wave", _number, server_default=sa.text("0")),
    sa.ForeignKeyConstraint(["product", "identifier"], ["devices.product", "devices.identifier"]),
    sa.Index("tasks_of_device", "product", "identifier"),
    sa.Index(  # at rest they are never due, and most are at rest
        "tasks_due",
        "due",
        sqlite_where=sa.text("due IS NOT NULL"),
        postgresql_where=sa.text("due IS NOT NULL"),
    ),
)
events = sa.Table(
    "events",
    meta,
    _column("id", _number, primary_key=True),
    _column("time", _time),
    _column("product", _text),
    _column("identifier", _text),
    _column("batch", _number, nullable=True),
    _column("kind", _text),
    _column("text", _text),
    sa.Index("events_of_device", "product", "identifier", "id"),
)
settings = sa.Table(
    "settings", meta, _column("key", _text, primary_key=True), _column("value", _text)
)
operators = sa.Table(
    "operators", meta, _column("name", _text, primary_key=True), _column("password", _text)
)
sessions = sa.Table(
    "sessions",
    meta,
    _column("id", _text, primary_key=True),
    _column("operator", _text),
    _column("csrf", _text),
    _column("ends", _time),
)
tokens = sa.Table(
    "tokens",
    meta,
    _column("name", _text, primary_key=True),
    _column("digest", _text, unique=True),
    _column("created", _time),
)

OF = {
    Product: products,
    Device: devices,
    Firmware: firmware,
    Batch: batches,
    Task: tasks,
    Operator: operators,
    Session: sessions,
    Token: tokens,
}
