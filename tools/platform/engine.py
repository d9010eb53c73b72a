"""
The engine: runs the logic. Gives it the time and what comes in, carries out what comes back, tells
who waits for it.

The only place where effects of the logic are carried out: first stored, then published.
"""

import asyncio
import secrets
import time
from dataclasses import asdict, dataclass

from tools.platform import model
from tools.platform.link import Link
from tools.platform.logic import Changed, Note, Publish, Upgrades
from tools.platform.model import Batch, PlatformError
from tools.platform.registry import Registry
from tools.platform.store import Store


@dataclass
class Row:
    """A device in a batch, as the console shows it. version: as last reported."""

    device: str
    status: str
    progress: int
    version: str
    remark: str
    code: int | None
    message: str


class Engine:
    """Made in a running event loop, and used in it alone. link: to be set before it starts."""

    link: Link

    def __init__(self, upgrades: Upgrades, registry: Registry, store: Store):
        self.connected = False  # to the broker
        self._logic, self._books = upgrades, upgrades.books
        self._registry, self._store = registry, store
        self._news = asyncio.Event()

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
    ) -> dict:
        """
        A new batch. firmware: its id or name; devices: identifiers, None = all of its product.

        Returns {"batch": its number, "left_out": {identifier: why}}. Raises PlatformError.
        """
        model.check_batch(policy, timeout_s, retries, interval_s, valid_s)
        target, now = self._registry.find_firmware(firmware), time.time()
        self._registry.check_published(target)
        batch = Batch(
            id=max(self._books.batches, default=0) + 1,
            firmware=target.id,
            policy=policy,
            timeout_s=timeout_s,
            retries=retries,
            interval_s=interval_s,
            created=now,
            ends=now + valid_s,
            token=secrets.token_hex(4),
        )
        chosen = self._registry.find_devices(target.product, devices)
        left_out, effects = self._logic.start(now, batch, chosen)
        self._carry_out(effects)
        self.tick()
        return {"batch": batch.id, "left_out": left_out}

    def abort(self, batch: int):
        """Stops the devices that are not Pushed yet. Raises PlatformError when it has ended."""
        self._carry_out(self._logic.abort(time.time(), self._batch(batch)))

    def batches(self) -> list[dict]:
        """All batches, oldest first: `batch` without its rows."""
        return [self._summary(batch) for batch in self._books.batches.values()]

    def batch(self, batch: int) -> dict:
        """Its settings, state, at_rest, firmware (name), version, rows. Raises PlatformError."""
        return {**self._summary(self._batch(batch)), "rows": self.status(batch)}

    def status(self, batch: int) -> list[Row]:
        """The devices of a batch. Raises PlatformError."""
        return [
            Row(
                task.identifier,
                task.status,
                task.progress,
                self._books.devices[task.key].version,
                task.remark,
                task.code,
                task.message,
            )
            for task in self._books.tasks(self._batch(batch))
        ]

    async def wait(self, batch: int, timeout: float) -> list[Row]:
        """
        Until all its devices are at rest. timeout: seconds. Returns status(batch).
        Raises TimeoutError, PlatformError.
        """
        found = self._batch(batch)
        await self.until(lambda: self._books.at_rest(found), timeout)
        return self.status(batch)

    async def wait_seen(self, devices: list[str], timeout: float):
        """
        Until all these devices have reported a version. timeout: seconds.
        Raises TimeoutError, PlatformError.
        """
        found = [self._registry.find_device(identifier) for identifier in devices]
        await self.until(lambda: all(device.version for device in found), timeout)

    def events(self, device: str) -> list[dict]:
        """The log of a device, oldest first: time, batch, kind, text. Raises PlatformError."""
        return self._store.events(self._registry.find_device(device).key)

    # What happens

    def received(self, topic: str, payload: bytes, retained: bool):
        """A message of the link. A retained one is old news."""
        parts = topic.split("/")  # "", sys, product, identifier, ota, firmware, name
        if not retained and len(parts) == 7:
            effects = self._logic.receive(time.time(), parts[2], parts[3], parts[6], payload)
            self._carry_out(effects)

    def link_changed(self, connected: bool):
        """The link came up or broke."""
        self.connected = connected
        if connected:
            self._carry_out(self._logic.listening(time.time()))
            self.tick()
        self._spread_news()

    def tick(self):
        """Time passes. While the broker is away nothing can be sent, and nobody be late."""
        if self.connected:
            self._carry_out(self._logic.tick(time.time()))

    async def until(self, condition, timeout: float):
        """
        Waits until condition() holds, asked at each news. Raises TimeoutError after timeout
        seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError as error:  # before Python 3.11 another class
                raise TimeoutError(f"not within {timeout:g} s") from error

    def _carry_out(self, effects):
        now = time.time()
        records, lines, messages = {}, [], []
        for effect in effects:
            if isinstance(effect, Changed):
                records[id(effect.record)] = effect.record
            elif isinstance(effect, Note):
                line = {"batch": effect.batch, "kind": effect.kind, "text": effect.text}
                product, identifier = effect.key
                lines.append({"time": now, "product": product, "identifier": identifier, **line})
            elif isinstance(effect, Publish):
                messages.append(effect)
        if records or lines:
            self._store.save(records.values(), lines)
        for message in messages:
            self.link.publish(message.topic, message.payload)
        if effects:
            self._spread_news()

    def _spread_news(self):
        self._news.set()
        self._news = asyncio.Event()

    def _batch(self, number) -> Batch:
        if number not in self._books.batches:
            raise PlatformError(f"no batch {number}")
        return self._books.batches[number]

    def _summary(self, batch):
        firmware = self._books.firmware[batch.firmware]
        settings = asdict(batch)
        del settings["token"], settings["aborted"]
        return {
            **settings,
            "firmware": firmware.name,
            "version": firmware.version,
            "state": self._books.state(batch),
            "at_rest": self._books.at_rest(batch),
        }
