"""
The store: what must survive a restart of the platform, in one SQLite file of the platform's
folder.

One process owns it (the file is locked while the platform runs), one thread uses it. Knows
records, no rules.
"""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tools.platform.model import Batch, Device, Firmware, Key, PlatformError, Product, Task

EVENTS_MAX = 100_000  # the oldest go when the platform starts

_meta = sa.MetaData()
_text, _number, _time = sa.Text, sa.Integer, sa.Float


def _column(name, kind, *more, **options):
    options.setdefault("nullable", False)
    return sa.Column(name, kind, *more, **options)


_products = sa.Table(
    "products",
    _meta,
    _column("key", _text, primary_key=True),
    _column("name", _text),
    _column("signed", sa.Boolean, server_default=sa.text("0")),
)
_devices = sa.Table(
    "devices",
    _meta,
    _column("product", _text, sa.ForeignKey("products.key"), primary_key=True),
    # The MQTT client id is the identifier alone, so two products cannot share one.
    _column("identifier", _text, primary_key=True, unique=True),
    _column("secret", _text),
    _column("name", _text),
    _column("version", _text),
    _column("seen", _time, nullable=True),
)
_firmware = sa.Table(
    "firmware",
    _meta,
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
)
_batches = sa.Table(
    "batches",
    _meta,
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
)
_tasks = sa.Table(
    "tasks",
    _meta,
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
    sa.ForeignKeyConstraint(["product", "identifier"], ["devices.product", "devices.identifier"]),
)
_events = sa.Table(
    "events",
    _meta,
    _column("id", _number, primary_key=True),
    _column("time", _time),
    _column("product", _text),
    _column("identifier", _text),
    _column("batch", _number, nullable=True),
    _column("kind", _text),
    _column("text", _text),
    sa.Index("events_of_device", "product", "identifier", "id"),
)
_settings = sa.Table(
    "settings", _meta, _column("key", _text, primary_key=True), _column("value", _text)
)
_TABLES = {
    Product: _products,
    Device: _devices,
    Firmware: _firmware,
    Batch: _batches,
    Task: _tasks,
}


class Store:
    """
    path: of the SQLite file; made when it is missing. Raises PlatformError when another process
    has it open.
    """

    def __init__(self, path: Path):
        path.touch(mode=0o600)  # device secrets are in it
        self._engine = sa.create_engine(
            f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 0.2}
        )
        self._connection = self._engine.connect()
        try:
            for pragma in (
                "foreign_keys=ON",
                "locking_mode=EXCLUSIVE",  # one owner; the lock ends with its process
                "journal_mode=WAL",
                "synchronous=NORMAL",  # a power cut may lose the last moment, never the file
            ):
                self._connection.exec_driver_sql(f"PRAGMA {pragma}")
            _meta.create_all(self._connection)
            self._add_columns()
            last = sa.select(sa.func.max(_events.c.id)).scalar_subquery()
            self._connection.execute(sa.delete(_events).where(_events.c.id <= last - EVENTS_MAX))
            self._connection.commit()
        except sa.exc.OperationalError as error:
            self.close()
            raise PlatformError(
                f"{path}: {error.orig} (does another platform run on it?)"
            ) from error

    def close(self):
        self._connection.close()
        self._engine.dispose()

    def _add_columns(self):
        # Those that a file of an earlier release does not have; each has a default.
        look = sa.inspect(self._connection)
        for table in _meta.sorted_tables:
            there = {column["name"] for column in look.get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    words = sa.schema.CreateColumn(column).compile(self._engine)
                    self._connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD {words}")

    def load(self, kind: type) -> list:
        """
        All records of that class, in the order of their keys (batches before their tasks is the
        caller's).
        """
        table = _TABLES[kind]
        names = [field.name for field in fields(kind)]
        query = sa.select(*(table.c[name] for name in names)).order_by(*table.primary_key)
        with self._connection.begin():
            return [kind(*row) for row in self._connection.execute(query)]

    def save(self, records: Iterable[object], events: Iterable[dict] = ()):
        """Records (by their primary keys) and lines of the log, all or nothing."""
        with self._connection.begin():
            for record in records:
                table, values = _TABLES[type(record)], asdict(record)
                same = sa.and_(*(column == values[column.name] for column in table.primary_key))
                if not self._connection.execute(
                    sa.update(table).where(same).values(values)
                ).rowcount:
                    self._connection.execute(sa.insert(table).values(values))
            events = list(events)
            if events:
                self._connection.execute(sa.insert(_events), events)

    def setting(self, key: str, default: str) -> str:
        """The value of a setting; stores the default when it has none yet."""
        with self._connection.begin():
            query = sa.select(_settings.c.value).where(_settings.c.key == key)
            value = self._connection.execute(query).scalar()
            if value is None:
                value = default
                self._connection.execute(sa.insert(_settings).values(key=key, value=value))
            return value

    def events(self, key: Key, most: int = 1000) -> list[dict]:
        """The last lines of a device's log, oldest first: time, batch, kind, text."""
        query = (
            sa.select(_events.c["time", "batch", "kind", "text"])
            .where(_events.c.product == key[0], _events.c.identifier == key[1])
            .order_by(_events.c.id.desc())
            .limit(most)
        )
        with self._connection.begin():
            return [dict(row) for row in self._connection.execute(query).mappings()][::-1]
