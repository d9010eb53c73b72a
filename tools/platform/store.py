"""
The store: what must survive a restart of the platform, in SQLite or PostgreSQL. Knows records, no
rules.

All happens in transactions, from any thread. SQLite has one at a time. PostgreSQL has many, also
of other workers, so what one changes it has locked: devices, then tasks by device and batch,
each in the order of their keys, so that no two wait for each other.
"""

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path

import sqlalchemy as sa

from tools.platform import migrations, tables
from tools.platform.books import Books, UrlOf
from tools.platform.course import WAITS_FOR_DEVICE, WAITS_FOR_US, tells_of_firmware
from tools.platform.model import TO_BE_PUSHED, Batch, Device, Firmware, Key, PlatformError, Task
from tools.platform.rollout import Counts

_LOCK_FILE = "platform.lock"
_BUSY_S = 10.0  # for a lock of SQLite that somebody else holds
_POOL = 10  # connections to PostgreSQL; more for a moment
_POOL_S = 10.0  # for a free one
# Of PostgreSQL: no statement waits longer for a lock, and who stands still in a transaction is
# shown out, so that one stuck worker does not hold up the others.
_PATIENCE = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "30s"}
# Of libpq: seconds to connect; milliseconds until a connection is dead that acknowledges nothing.
_CONNECT = {"connect_timeout": 10, "tcp_user_timeout": 20_000}
_KEYS_MAX = 500  # in one query
_HISTORY = 5  # tasks of a device that are looked at, besides those that are not at rest
_MIGRATION_LOCK = 7_060_315  # of PostgreSQL, for one worker at a time: any number

_tasks, _devices, _batches, _events = (
    tables.tasks,
    tables.devices,
    tables.batches,
    tables.events,
)


class Store:
    """
    folder: of one process; keeps the SQLite file; url: SQLAlchemy's, of PostgreSQL, None = SQLite
    in the folder. Raises PlatformError when another process has that folder, or the data base
    cannot be reached.
    """

    def __init__(self, folder: Path, url: str | None = None):
        self._lock_file = _own(folder / _LOCK_FILE)
        path = folder / "platform.db"
        if not url:
            path.touch(mode=0o600)  # device secrets are in it
        try:
            parsed = sa.make_url(url or f"sqlite:///{path}")
            self._lite = parsed.get_backend_name() == "sqlite"
            self._engine = _lite_engine(parsed) if self._lite else _engine(parsed)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            self.close()
            raise PlatformError(
                f"data base {_shown(url)!r}: it looks like postgresql+psycopg://user@host/name"
            ) from error
        self._one = threading.RLock() if self._lite else nullcontext()
        try:
            with self._one, self._engine.begin() as connection:
                if not self._lite:
                    # One that is first may have much to do.
                    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                migrations.upgrade(connection)
        except sa.exc.SQLAlchemyError as error:
            self.close()
            cause = getattr(error, "orig", None) or error
            raise PlatformError(f"data base {_shown(url or str(path))}: {cause}") from error
        except PlatformError:
            self.close()
            raise

    @property
    def shared(self) -> bool:
        """True when other workers may use the same data base."""
        return not self._lite

    def close(self):
        if hasattr(self, "_engine"):
            self._engine.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextmanager
    def begin(self) -> Iterator["Transaction"]:
        """A transaction: all of it, or when the block raises, nothing."""
        with self._one, self._engine.begin() as connection:
            yield Transaction(connection, self._lite)


class Transaction:
    """What can be done in one. Records that it gives are copies."""

    def __init__(self, connection: sa.Connection, lite: bool):
        self._connection, self._lite = connection, lite

    # Records

    def find(
        self,
        kind: type,
        *where,
        order: Iterable = (),
        limit: int | None = None,
        lock: bool = False,
        skip_locked: bool = False,
    ) -> list:
        """
        Records of that class. where: conditions on tables.OF[kind]; order: default its primary
        key; lock: nobody else changes them until the end of the transaction.
        """
        table = tables.OF[kind]
        query = sa.select(*(table.c[field.name] for field in fields(kind))).where(*where)
        order = list(order or table.primary_key)
        query = query.order_by(*(self._order(order) if lock else order)).limit(limit)
        if lock:
            query = query.with_for_update(skip_locked=skip_locked)
        return [kind(*row) for row in self._connection.execute(query)]

    def get(self, kind: type, *key, lock: bool = False) -> object | None:
        """The record with that primary key."""
        columns = tables.OF[kind].primary_key
        where = [column == value for column, value in zip(columns, key, strict=True)]
        return next(iter(self.find(kind, *where, lock=lock)), None)

    def insert(self, records: list) -> None:
        """New ones, of one class. Raises sqlalchemy.exc.IntegrityError."""
        if records:
            table = tables.OF[type(records[0])]
            self._connection.execute(sa.insert(table), [asdict(record) for record in records])

    def insert_numbered(self, record) -> int:
        """A new one, whose id the data base makes. Returns it, and sets it."""
        values = asdict(record)
        del values["id"]
        made = self._connection.execute(sa.insert(tables.OF[type(record)]).values(values))
        record.id = made.inserted_primary_key[0]
        return record.id

    def update(self, records: Iterable) -> None:
        """Those that are there already."""
        by_table: dict[sa.Table, list] = {}
        for record in records:
            by_table.setdefault(tables.OF[type(record)], []).append(asdict(record))
        # In the order in which they are locked.
        for table, rows in sorted(by_table.items(), key=lambda item: item[0].name):
            keys = [column.name for column in table.primary_key]
            rest = [column.name for column in table.columns if column.name not in keys]
            query = (
                sa.update(table)
                .where(*(table.c[name] == sa.bindparam("key_" + name) for name in keys))
                .values({name: sa.bindparam("new_" + name) for name in rest})
            )
            rows.sort(key=lambda row: [row[name] for name in keys])
            self._connection.execute(
                query,
                [
                    {"key_" + name: row[name] for name in keys}
                    | {"new_" + name: row[name] for name in rest}
                    for row in rows
                ],
            )

    def delete(self, kind: type, *where) -> int:
        """Returns how many there were."""
        return self._connection.execute(sa.delete(tables.OF[kind]).where(*where)).rowcount

    def count(self, kind: type, *where) -> int:
        """How many there are."""
        query = sa.select(sa.func.count()).select_from(tables.OF[kind]).where(*where)
        return self._connection.execute(query).scalar_one()

    def scalar(self, query: sa.Select) -> object | None:
        """The first column of its first row."""
        return self._connection.execute(query).scalar()

    def rows_of(self, query: sa.Select) -> list:
        """All its rows."""
        return list(self._connection.execute(query))

    def setting(self, key: str, default: str) -> str:
        """The value of a setting; stores the default when it has none yet."""
        table = tables.settings
        query = sa.select(table.c.value).where(table.c.key == key)
        value = self._connection.execute(query).scalar()
        if value is None:
            try:
                with self._connection.begin_nested():
                    self._connection.execute(sa.insert(table).values(key=key, value=default))
                return default
            except sa.exc.IntegrityError:  # another worker was first
                value = self._connection.execute(query).scalar_one()
        return value

    # The log of a device

    def log(self, lines: list[dict]) -> None:
        """lines: time, product, identifier, batch, kind, text."""
        if lines:
            self._connection.execute(sa.insert(_events), lines)

    def events(self, key: Key, limit: int, before: int | None = None) -> list[dict]:
        """
        The last lines of a device's log, oldest first: id, time, batch, kind, text. before: those
        with a smaller id.
        """
        query = (
            sa.select(_events.c["id", "time", "batch", "kind", "text"])
            .where(_events.c.product == key[0], _events.c.identifier == key[1])
            .order_by(_events.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(_events.c.id < before)
        return [dict(row) for row in self._connection.execute(query).mappings()][::-1]

    def forget_device(self, key: Key) -> None:
        """All that is known of it, but the device itself, which is locked."""
        for table in (_tasks, _events):
            mine = table.c.product == key[0], table.c.identifier == key[1]
            self._connection.execute(sa.delete(table).where(*mine))

    def forget_events_of(self, key: Key, keep: int) -> None:
        """Of one device the newest lines stay."""
        mine = _events.c.product == key[0], _events.c.identifier == key[1]
        newest = sa.select(_events.c.id).where(*mine).order_by(_events.c.id.desc())
        oldest = newest.limit(1).offset(keep).scalar_subquery()
        self._connection.execute(sa.delete(_events).where(*mine, _events.c.id <= oldest))

    def forget_events(self, keep: int) -> int:
        """Of all lines the newest stay. Returns how many went."""
        newest = sa.select(sa.func.max(_events.c.id)).scalar_subquery()
        return self._connection.execute(
            sa.delete(_events).where(_events.c.id <= newest - keep)
        ).rowcount

    # Tasks

    def live_tasks_of(self, product: str, devices: list[Device] | None) -> list[Task]:
        """Not at rest; of these devices, None = of all of the product."""
        live = _tasks.c.product == product, _tasks.c.due.is_not(None)
        if devices is None:
            return self.find(Task, *live)
        return [
            task
            for some in _pieces(sorted(device.identifier for device in devices))
            for task in self.find(Task, *live, _tasks.c.identifier.in_(some))
        ]

    def due(self, now: float, limit: int) -> list[Task]:
        """Whose wait is over, but those that another worker is busy with; locked."""
        return self.find(
            Task,
            _tasks.c.due <= now,
            order=[_tasks.c.due],
            limit=limit,
            lock=True,
            skip_locked=True,
        )

    def grant(self, until: float) -> None:
        """Whoever is waited for is waited for until then at least."""
        self._make_due(until, _tasks.c.status.in_(WAITS_FOR_DEVICE), _tasks.c.due < until)

    def statuses(self, batches: Iterable[int]) -> dict[int, dict[str, int]]:
        """How many devices of each batch have each status."""
        found: dict[int, dict[str, int]] = {number: {} for number in batches}
        query = (
            sa.select(_tasks.c.batch, _tasks.c.status, sa.func.count())
            .where(_tasks.c.batch.in_(list(found)))
            .group_by(_tasks.c.batch, _tasks.c.status)
        )
        for number, status, count in self._connection.execute(query):
            found[number][status] = count
        return found

    def rows(
        self,
        batch: int,
        limit: int,
        after: str = "",
        status: str = "",
        names: list[str] | None = None,
    ) -> list[tuple[Task, str]]:
        """
        Devices of a batch, by their identifiers, each with its version. after: behind that
        identifier; status: "" = any; names: identifiers, None = all.
        """
        query = (
            sa.select(*(_tasks.c[field.name] for field in fields(Task)), _devices.c.version)
            .join(_devices)
            .where(_tasks.c.batch == batch, _tasks.c.identifier > after)
            .order_by(_tasks.c.identifier)
            .limit(limit)
        )
        if status:
            query = query.where(_tasks.c.status == status)
        if names is not None:
            query = query.where(_tasks.c.identifier.in_(names))
        return [(Task(*row[:-1]), row[-1]) for row in self._connection.execute(query)]

    def devices_named(self, identifiers: Iterable[str]) -> list[Device]:
        """Locked. Unknown ones are left out."""
        return [
            device
            for some in _pieces(sorted(set(identifiers)))
            for device in self.find(Device, _devices.c.identifier.in_(some), lock=True)
        ]

    # Books

    def ledger(self, url_of: UrlOf, keys: Iterable[Key]) -> "Ledger":
        """The books about these devices, which are locked."""
        ledger = Ledger(self, url_of)
        keys = sorted(set(keys))
        key = sa.tuple_(*_devices.primary_key)
        for some in _pieces(keys):
            for device in self.find(Device, key.in_(some), lock=True):
                ledger.enter(device)
        ledger.take_in(self._recent_tasks(keys))
        return ledger

    def _recent_tasks(self, keys):
        # Of devices that are locked, so that no other begins: those that are not at rest, and the
        # last ones, by which late messages are known. Those of one device oldest first; locked.
        order = _tasks.c["product", "identifier", "batch"]
        number = sa.func.row_number().over(partition_by=order[:2], order_by=order[2].desc())
        found = []
        for some in _pieces(keys):
            mine = sa.tuple_(*order[:2]).in_(some)
            recent = sa.select(*order, _tasks.c.due, number.label("number")).where(mine).subquery()
            query = sa.select(*recent.c["product", "identifier", "batch"]).where(
                (recent.c.number <= _HISTORY) | recent.c.due.is_not(None)
            )
            found += [tuple(row) for row in self.rows_of(query)]
        return [
            task
            for some in _pieces(sorted(found))
            for task in self.find(Task, sa.tuple_(*order).in_(some), order=order, lock=True)
        ]

    def wave_counts(self, batch: Batch) -> Counts:
        """How the open waves of a batch are doing."""
        some = _tasks.c["wave", "status", "remark", "code"]
        query = sa.select(*some, sa.func.count()).group_by(*some)
        counts = Counts(0, 0, 0, 0)
        for wave, status, remark, code, number in self.rows_of(
            query.where(_tasks.c.batch == batch.id)
        ):
            task = Task(batch.id, "", "", status, remark=remark, code=code)
            counts.left += number * (not task.at_rest)
            if wave <= batch.wave:
                counts.open += number
                counts.at_rest += number * task.at_rest
                counts.failed += number * tells_of_firmware(task)
        return counts

    def open_wave(self, batch: Batch, now: float) -> None:
        """Its devices are due now."""
        opened = _tasks.c.batch == batch.id, _tasks.c.wave == batch.wave
        self._make_due(now, *opened, _tasks.c.status == TO_BE_PUSHED)

    def stop_waiting(self, batch: Batch, now: float) -> None:
        """Its devices that wait for us are due now: it is aborted, so that is their end."""
        self._make_due(now, _tasks.c.batch == batch.id, _tasks.c.status.in_(WAITS_FOR_US))

    def _order(self, columns):
        # In which rows are locked. Pieces of many keys are sorted here, so the data base has to
        # sort as Python does, whatever its language.
        if self._lite:
            return columns
        return [
            column.collate("C") if isinstance(column.type, sa.Text) else column
            for column in columns
        ]

    def _make_due(self, when, *where):
        key = _tasks.c["product", "identifier", "batch"]
        order = self._order(key)
        locked = sa.select(*key).where(*where).order_by(*order).with_for_update()
        query = sa.update(_tasks).where(sa.tuple_(*key).in_(locked), *where)
        self._connection.execute(query.values(due=when))


class Ledger(Books):
    """Books that hold what one transaction needs, and ask it for what they do not hold."""

    def __init__(self, transaction: Transaction, url_of: UrlOf):
        super().__init__(url_of)
        self._transaction = transaction

    def take_in(self, tasks: list[Task]) -> None:
        """With the batches and firmware that they are about."""
        find = self._transaction.find
        numbers = {task.batch for task in tasks} - set(self.batches)
        for batch in find(Batch, _batches.c.id.in_(numbers)) if numbers else ():
            self.enter(batch)
        targets = {batch.firmware for batch in self.batches.values()} - set(self.firmware)
        for item in find(Firmware, tables.firmware.c.id.in_(targets)) if targets else ():
            self.enter(item)
        for task in tasks:
            self.enter(task)

    def counts(self, batch: Batch) -> Counts:
        return self._transaction.wave_counts(batch)

    def open_wave(self, batch: Batch, now: float):
        self._transaction.open_wave(batch, now)

    def newest(self, product: str, version: str) -> Firmware | None:
        table = tables.firmware
        where = table.c.product == product, table.c.version == version, ~table.c.removed
        found = self._transaction.find(Firmware, *where, order=[table.c.id.desc()], limit=1)
        return found[0] if found else None

    def knows(self, key: Key) -> bool:
        return key in self.devices or self._transaction.get(Device, *key) is not None


def _pieces(keys):
    return (keys[at : at + _KEYS_MAX] for at in range(0, len(keys), _KEYS_MAX))


def _engine(url):
    options = {"pool_size": _POOL, "pool_timeout": _POOL_S, "pool_pre_ping": True}
    engine = sa.create_engine(url, connect_args=_CONNECT, **options)

    @sa.event.listens_for(engine, "connect")
    def connected(connection, record):
        with connection.cursor() as cursor:
            for name, value in _PATIENCE.items():
                cursor.execute(f"SET {name} = '{value}'")
        connection.commit()

    return engine


def _lite_engine(url):
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})

    @sa.event.listens_for(engine, "connect")
    def connected(connection, record):
        connection.isolation_level = None  # sqlite3 would begin late, and by itself
        for pragma in (
            "foreign_keys=ON",
            "journal_mode=WAL",
            "synchronous=NORMAL",  # a power cut may lose the last moment, never the file
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begun(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _own(path):
    # The lock ends with its process, whatever ends it.
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise PlatformError(f"{path.parent}: another platform runs on it") from error
    return file


def _shown(url):
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url
