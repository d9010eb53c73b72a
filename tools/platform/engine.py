"""
The engine: runs the logic. Gives it the time and what comes in, carries out what comes back, tells
who waits for it.

The only place where effects of the logic are carried out: first stored, then published, then
acknowledged. Messages and time are handled by a thread of its own, many messages in one
transaction; what people ask for, in theirs. Any number of engines, in as many processes, may share
one PostgreSQL.
"""

import logging
import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from tools.platform import model, registry, rollout, tables
from tools.platform.books import UrlOf
from tools.platform.course import REPLY_S
from tools.platform.link import Link
from tools.platform.logic import Changed, Note, Publish, Upgrades
from tools.platform.model import Batch, Firmware, Key, NotFound, PlatformError, Task
from tools.platform.store import Ledger, Store

PAGE = registry.PAGE
EVENTS_MAX = 1_000_000  # lines of all logs, the oldest go

_OWN_MAX = 1000  # lines of one device, likewise; it may have _OWN_LOOK more
_OWN_LOOK = 100  # lines of a device between two looks at how many it has
_WRITERS_MAX = 20_000  # devices whose lines are counted

_GROUP = 200  # messages in one transaction
_INBOX = 20_000  # messages that wait; more are not acknowledged, so the broker keeps them
_INBOX_S = 20.0  # the link waits for room, shorter than the keepalive of its connection
_PUSH = 200  # commands at a time; in between, messages are handled
_SENT_MAX = 200  # messages that the broker has not acknowledged: more commands wait
_SENT_S = 0.02  # between two looks whether it has
_LATE_S = 5.0  # while messages wait, time passes only as often: who waits there is not late
_ROLL_TICKS = 4  # between two looks at gradual roll-outs: each counts the devices of a batch
_CHUNK = 500  # tasks in one transaction of an abort
_TIDY_S = 300.0
_TRY_S = (0.2, 5.0)  # before the next try, when the data base is away: first, longest
_STOP_S = 10.0  # for what is being done; longer it waits for a data base that says nothing
_LOOK_S = 0.1  # between two looks of who waits: other workers tell no news

# The data base is away, or could not do it now: the same again may work. Also a deadlock.
AWAY = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.InternalError,
    sa.exc.TimeoutError,
)

_log = logging.getLogger(__name__)
_tasks, _batches = tables.tasks, tables.batches


@dataclass
class Row:
    """
    A device in a batch, as the console shows it. version: as last reported; retries: so far.
    """

    device: str
    status: str
    progress: int
    version: str
    remark: str
    code: int | None
    message: str
    retries: int = 0


class _Message(NamedTuple):
    time: float
    key: Key
    name: str
    payload: bytes
    done: Callable[[], None]


@dataclass
class _Wanted:
    """What is to be stored and sent."""

    records: dict[int, object] = field(default_factory=dict)
    lines: list[dict] = field(default_factory=list)
    messages: list[Publish] = field(default_factory=list)

    def add(self, effects: Iterable, now: float):
        for effect in effects:
            if isinstance(effect, Changed):
                self.records[id(effect.record)] = effect.record
            elif isinstance(effect, Publish):
                self.messages.append(effect)
            elif isinstance(effect, Note):
                product, identifier = effect.key
                who = {"time": now, "product": product, "identifier": identifier}
                what = {"batch": effect.batch, "kind": effect.kind, "text": effect.text}
                self.lines.append(who | what)


class Engine:
    """
    url_of: the URL of a firmware for a device; reply_s: seconds in which a reply must come;
    tick_s: seconds between two looks at the clock; events: how many lines of logs are kept. link:
    to be set before it starts. Its calls may be made from any thread.
    """

    link: Link | None = None

    def __init__(
        self,
        store: Store,
        url_of: UrlOf,
        reply_s: float = REPLY_S,
        tick_s: float = 0.5,
        events: int = EVENTS_MAX,
    ):
        self.connected = False  # to the broker
        self.handled = 0  # messages of devices, since the start
        self._store, self._url_of = store, url_of
        self._reply_s, self._tick_s, self._events = reply_s, tick_s, events
        self._inbox: queue.Queue[_Message | None] = queue.Queue(_INBOX)  # None: look at the clock
        self._news = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._changes = 0  # of the link
        self._written: Counter[Key] = Counter()  # lines of each device since the last look
        self._granted = 0  # after that change, who is waited for got time for what comes late

    def start(self):
        """Once."""
        self._thread.start()

    def stop(self):
        """Harmless when it never started. What was not handled was not acknowledged."""
        self._ended.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        self._spread_news()

    # What people ask for; products, devices and firmware: see Registry

    def upgrade(
        self,
        firmware: int | str,
        devices: list[str] | None = None,
        policy: str = "standard",
        timeout_s: float = 3600,
        retries: int = 0,
        interval_s: float = 60,
        valid_s: float = 86400,
        shares: str = "100",
        failures: int = 100,
    ) -> dict:
        """
        A new batch. firmware: its id (int) or name (str); devices: identifiers, None = all of its
        product; shares, failures: of a gradual roll-out, see rollout.py.

        Returns {"batch": its number, "left_out": {identifier: why}}. Raises PlatformError.
        """
        model.check_batch(policy, timeout_s, retries, interval_s, valid_s)
        rollout.check(shares, failures)
        with self._store.begin() as tx:
            target, now = registry.find_to_publish(tx, firmware), time.time()
            batch = Batch(
                id=0,
                firmware=target.id,
                policy=policy,
                timeout_s=timeout_s,
                retries=retries,
                interval_s=interval_s,
                created=now,
                ends=now + valid_s,
                token=secrets.token_hex(4),
                shares=shares,
                failures=failures,
            )
            chosen = registry.find_devices(tx, target.product, devices)
            tx.insert_numbered(batch)
            ledger = Ledger(tx, self._url_of)
            for record in (target, *chosen):
                ledger.enter(record)
            ledger.take_in(tx.live_tasks_of(target.product, chosen if devices else None))
            left_out, effects = Upgrades(ledger, self._reply_s).start(now, batch, chosen)
            wanted = _Wanted()
            wanted.add(effects, now)
            tx.insert([item for item in wanted.records.values() if item is not batch])
            tx.log(wanted.lines)
        self._wake()
        return {"batch": batch.id, "left_out": left_out}

    def abort(self, batch: int):
        """Stops the devices that are not Pushed yet. Raises PlatformError when it has ended."""
        with self._store.begin() as tx:
            found = self._batch(tx, batch, lock=True)
            state = self._summaries(tx, [found])[0]["state"]
            if state != model.IN_PROGRESS:
                raise PlatformError(f"batch {batch} is {state}: only one In Progress is aborted")
            found.aborted = True
            tx.update([found])
            tx.stop_waiting(found, time.time())
        self._stop_devices(batch)

    def retry(self, batch: int, device: str):
        """
        One attempt more for a device that Failed. Raises PlatformError when it did not, when the
        batch is over, or the device is in another one.
        """
        with self._store.begin() as tx:
            self._batch(tx, batch)
            key = registry.find_device(tx, device).key
            ledger, wanted = tx.ledger(self._url_of, [key]), _Wanted()
            if tx.get(Task, batch, *key) is None:
                raise NotFound(f"device {device} is not in batch {batch}")
            task = ledger.tasks_of(ledger.devices[key])[-1]
            if task.batch != batch:
                raise PlatformError(f"device {device} was in a later batch, {task.batch}")
            now = time.time()
            wanted.add(Upgrades(ledger, self._reply_s).retry(now, task), now)
            self._save(tx, wanted)
        self._wake()

    def batches(self, before: int | None = None, limit: int = PAGE) -> list[dict]:
        """
        The last batches, oldest first: `batch` of each. before: those with a smaller number.
        """
        where = [] if before is None else [_batches.c.id < before]
        with self._store.begin() as tx:
            order, limit = [_batches.c.id.desc()], min(limit, PAGE)
            return self._summaries(tx, tx.find(Batch, *where, order=order, limit=limit)[::-1])

    def batch(self, batch: int) -> dict:
        """
        Its settings, state, at_rest, firmware (name), product, version, devices (how many), and
        statuses: how many have each. Raises PlatformError.
        """
        with self._store.begin() as tx:
            return self._summaries(tx, [self._batch(tx, batch)])[0]

    def status(
        self,
        batch: int,
        after: str = "",
        limit: int = PAGE,
        status: str = "",
        devices: list[str] | None = None,
    ) -> list[Row]:
        """
        Devices of a batch, by their identifiers. after: behind that identifier; limit: 1 to PAGE;
        status, devices: those alone. Raises PlatformError.
        """
        with self._store.begin() as tx:
            self._batch(tx, batch)
            found = tx.rows(batch, min(limit, PAGE), after, status, devices)
        return [
            Row(
                task.identifier,
                task.status,
                task.progress,
                version,
                task.remark,
                task.code,
                task.message,
                task.attempt,
            )
            for task, version in found
        ]

    def wait(self, batch: int, timeout: float) -> list[Row]:
        """
        Until all its devices are at rest. timeout: seconds. Returns its first rows.
        Raises TimeoutError, PlatformError.
        """
        self.until(lambda: self.batch(batch)["at_rest"], timeout)
        return self.status(batch)

    def wait_seen(self, devices: list[str], timeout: float):
        """
        Until all these devices have reported a version. timeout: seconds.
        Raises TimeoutError, PlatformError.
        """

        def seen():
            with self._store.begin() as tx:
                found = [registry.find_device(tx, identifier) for identifier in devices]
            return all(device.version for device in found)

        self.until(seen, timeout)

    def events(self, device: str, limit: int = PAGE, before: int | None = None) -> list[dict]:
        """
        The last lines of a device's log, oldest first: id, time, batch, kind, text. before: those
        with a smaller id. Raises PlatformError.
        """
        with self._store.begin() as tx:
            key = registry.find_device(tx, device).key
            return tx.events(key, min(limit, PAGE), before)

    def health(self) -> dict:
        """
        broker: True = connected and subscribed; waiting: messages that the broker has not
        acknowledged. Raises what is in AWAY when the data base does not answer.
        """
        with self._store.begin() as tx:
            tx.scalar(sa.select(1))
        return {"broker": self.connected, "waiting": self.link.waiting if self.link else 0}

    def until(self, condition: Callable[[], object], timeout: float):
        """
        Waits until condition() holds, asked at each news, and ten times a second. Raises
        TimeoutError after timeout seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout:g} s")
            with self._news:
                self._news.wait(_LOOK_S)

    # What happens; called by the link, in its thread

    def received(
        self,
        topic: str,
        payload: bytes,
        retained: bool,
        done: Callable[[], None],
        lossy: bool = False,
    ):
        """
        A message of the link. A retained one is old news. done: called when it has been handled;
        lossy: it came at QoS 0, and goes when too much waits, so that the others have room.
        """
        parts = topic.split("/")  # "", sys, product, identifier, ota, firmware, name
        if retained or len(parts) != 7 or (lossy and self._inbox.qsize() > _INBOX // 2):
            done()
            return
        message = _Message(time.time(), (parts[2], parts[3]), parts[6], payload, done)
        # While it waits, the broker does: its connection is full.
        end = time.monotonic() + _INBOX_S
        while not self._ended.is_set():
            try:
                self._inbox.put(message, timeout=_LOOK_S)
                return
            except queue.Full:
                if time.monotonic() > end:
                    _log.warning("too many messages at once: the broker has to send them again")
                    self.link.renew()
                    return

    def link_changed(self, connected: bool):
        """The link came up or broke."""
        self._changes += 1
        self.connected = connected
        self._wake()
        self._spread_news()

    # In the engine's thread

    def _run(self):
        clock = tidy = roll = time.monotonic()
        while not self._ended.is_set():
            messages, woken = self._take(max(0.0, clock - time.monotonic()))
            if messages:
                self._handle(messages)
            now = time.monotonic()
            if (self._inbox.empty() and (woken or now >= clock)) or now >= clock + _LATE_S:
                pause = self._do(self._tick)
                clock = now + (self._tick_s if pause is None else pause)  # None: it raised
                if now >= roll:
                    self._do(self._roll_on)
                    roll = now + _ROLL_TICKS * self._tick_s
            if now >= tidy:
                self._do(self._tidy)
                tidy = now + _TIDY_S

    def _do(self, action):
        # What comes again anyway.
        try:
            return self._insist(action)
        except Exception:
            _log.exception("engine")
            return None

    def _take(self, wait):
        messages, woken = [], False
        try:
            found = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while True:
                if found is None:
                    woken = True
                else:
                    messages.append(found)
                if len(messages) == _GROUP:
                    break
                found = self._inbox.get_nowait()
        except queue.Empty:
            pass
        return messages, woken

    def _insist(self, action):
        # While the data base is away, messages are not acknowledged and nobody is late. Returns
        # what action() does, None = the engine has ended meanwhile. Raises what another try does
        # not mend.
        pause = _TRY_S[0]
        while not self._ended.is_set():
            try:
                return action()
            except Exception as error:
                if not _may_pass(error):
                    raise
                _log.warning("data base: %s", getattr(error, "orig", error))
                self._ended.wait(pause)
                pause = min(2 * pause, _TRY_S[1])
        return None

    def _handle(self, messages):
        try:
            wanted = self._insist(lambda: self._receive(messages))
        except Exception:
            if len(messages) > 1:  # one of them; alone it harms nobody else
                for message in messages:
                    self._handle([message])
                return
            _log.exception("message of %s, %s", messages[0].key, messages[0].name)
            wanted = _Wanted()
        if wanted is None:
            return
        self._send(wanted)
        for message in messages:
            message.done()
        self.handled += len(messages)

    def _receive(self, messages):
        wanted = _Wanted()
        with self._store.begin() as tx:
            ledger = tx.ledger(self._url_of, {message.key for message in messages})
            logic = Upgrades(ledger, self._reply_s)
            for message in messages:
                effects = logic.receive(message.time, *message.key, message.name, message.payload)
                wanted.add(effects, message.time)
            self._save(tx, wanted)
        return wanted

    def _tick(self):
        # Returns the seconds until the next one. While the broker is away, or has enough to do,
        # nothing can be sent, and nobody be late.
        if not self.connected:
            return self._tick_s
        if self.link.waiting > _SENT_MAX:
            return _SENT_S
        now = time.time()
        changes = self._changes
        if self._granted != changes:
            with self._store.begin() as tx:
                tx.grant(now + self._reply_s)
            self._granted = changes
        wanted = _Wanted()
        with self._store.begin() as tx:
            due = tx.due(now, _PUSH)
            ledger = Ledger(tx, self._url_of)
            ledger.take_in(due)
            wanted.add(Upgrades(ledger, self._reply_s).tick(now), now)
            self._save(tx, wanted)
        self._send(wanted)
        return 0.0 if len(due) == _PUSH else self._tick_s

    def _roll_on(self):
        with self._store.begin() as tx:
            live = sa.exists().where(_tasks.c.batch == _batches.c.id, _tasks.c.due.is_not(None))
            found = tx.find(Batch, ~_batches.c.aborted, live)
        for batch in found:
            if rollout.rolls(batch):
                self._roll(batch.id)

    def _roll(self, number):
        now, wanted = time.time(), _Wanted()
        with self._store.begin() as tx:
            batch = self._batch(tx, number, lock=True)
            if not rollout.rolls(batch):  # another worker was first
                return
            ledger = Ledger(tx, self._url_of)
            ledger.enter(batch)
            wanted.add(Upgrades(ledger, self._reply_s).roll(now, batch), now)
            self._save(tx, wanted)
            if batch.aborted:
                tx.stop_waiting(batch, now)
        if batch.aborted:
            self._stop_devices(number)
        if wanted.records:
            self._wake()

    def _tidy(self):
        with self._store.begin() as tx:
            tx.forget_events(self._events)

    # In any thread

    def _stop_devices(self, number):
        # Those of a batch that is aborted. They are due: should this be cut, tick goes on.
        after: str | None = ""
        while after is not None:
            now, wanted = time.time(), _Wanted()
            with self._store.begin() as tx:
                batch = self._batch(tx, number)
                some = tx.find(
                    Task,
                    _tasks.c.batch == number,
                    _tasks.c.identifier > after,
                    _tasks.c.status.not_in(model.AT_REST),
                    order=[_tasks.c.identifier],
                    limit=_CHUNK,
                    lock=True,
                )
                ledger = Ledger(tx, self._url_of)
                ledger.take_in(some)
                wanted.add(Upgrades(ledger, self._reply_s).abort(now, batch), now)
                self._save(tx, wanted)
            after = some[-1].identifier if len(some) == _CHUNK else None
        self._spread_news()

    def _save(self, tx, wanted):
        tx.update(wanted.records.values())
        tx.log(wanted.lines)
        for key in self._many_lines(wanted.lines):
            tx.forget_events_of(key, _OWN_MAX)

    def _many_lines(self, lines):
        # Who has written much, so that nobody pushes the lines of others out. Counted roughly: by
        # several threads, and of a transaction that may come again.
        if len(self._written) > _WRITERS_MAX:
            self._written.clear()
        self._written.update((line["product"], line["identifier"]) for line in lines)
        many = {
            (line["product"], line["identifier"])
            for line in lines
            if self._written[line["product"], line["identifier"]] >= _OWN_LOOK
        }
        for key in many:
            del self._written[key]
        return many

    def _send(self, wanted):
        for message in wanted.messages:
            self.link.publish(message.topic, message.payload)
        if wanted.records or wanted.lines:
            self._spread_news()

    def _wake(self):
        try:
            self._inbox.put_nowait(None)
        except queue.Full:
            pass  # it is awake

    def _spread_news(self):
        with self._news:
            self._news.notify_all()

    def _batch(self, tx, number, lock=False) -> Batch:
        found = tx.get(Batch, number, lock=lock)
        if found is None:
            raise NotFound(f"no batch {number}")
        return found

    def _summaries(self, tx, batches):
        statuses = tx.statuses(batch.id for batch in batches)
        numbers = {batch.firmware for batch in batches}
        firmware = {item.id: item for item in tx.find(Firmware, tables.firmware.c.id.in_(numbers))}
        return [_summary(batch, firmware[batch.firmware], statuses[batch.id]) for batch in batches]


def _may_pass(error):
    # Not when the message is to blame: what no data base holds, or a mistake of ours. Tables that
    # are not as we know them may: a newer release is at work, and will take our place.
    return isinstance(error, (*AWAY, sa.exc.ProgrammingError, MemoryError, OSError))


def _summary(batch, firmware, statuses):
    settings = asdict(batch)
    del settings["token"], settings["aborted"]
    at_rest = all(status in model.AT_REST for status in statuses)
    return {
        **settings,
        "firmware": firmware.name,
        "product": firmware.product,
        "version": firmware.version,
        "state": model.state(batch, at_rest),
        "at_rest": at_rest,
        "devices": sum(statuses.values()),
        "statuses": statuses,
    }
