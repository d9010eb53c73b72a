"""
The platform put together: store, logic, broker, MQTT client, file server and API in one event
loop.

The only place where the effects of the logic are carried out: first stored, then published.
"""

import asyncio
import json
import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aiohttp import web

from tools.platform import api, course, files, link, logic, model
from tools.platform.broker import Broker, same
from tools.platform.model import Batch, Firmware, PlatformError
from tools.platform.registry import Registry
from tools.platform.store import Store

API_FILE = (
    "api.json"  # in the folder while the platform runs: where its API is, and the token for it
)

_START_S = 10.0
_TICK_S = 0.5
_ANY = {
    "": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",
    "::": "::1",
}  # all addresses: how to reach it from here
_log = logging.getLogger(__name__)


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


class Platform:
    """
    The local platform.

    folder: keeps everything, made when it is missing; host: where to listen; mqtt_port, http_port:
    0 = any free one; broker: mqtt://host:port of a broker outside, None = the embedded one;
    throttle: bytes a second for each download, None = no brake; public_url: how devices reach the
    file server, None = as it listens; reply_s: the time for a reply.
    Raises PlatformError for a broker that is no such address.
    """

    def __init__(
        self,
        folder,
        host: str = "127.0.0.1",
        mqtt_port: int = 0,
        http_port: int = 0,
        broker: str | None = None,
        throttle: int | None = None,
        public_url: str | None = None,
        reply_s: float = course.REPLY_S,
    ):
        self.folder, self.host = Path(folder), host
        self.mqtt_port, self.http_port = mqtt_port, http_port
        self.public_url = public_url
        self.token = secrets.token_hex(16)  # of the API
        self.files = files.Files(self.folder / "firmware", throttle)
        self.connected = False  # to the broker
        self.registry: Registry | None = None
        self._outside = link.address_of(broker) if broker else None
        self._logic = logic.Upgrades(self._url_of, reply_s)
        self._books = self._logic.books
        self._tick_s = min(_TICK_S, reply_s / 4)
        self._own_login = "platform-" + secrets.token_hex(8), "platform", secrets.token_hex(16)
        self._store = self._broker = self._link = self._runner = self._ticking = self._news = None

    # Life

    async def start(self):
        """
        Raises PlatformError when the folder or a port is taken. Waits for the embedded broker
        only.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._news = asyncio.Event()
        try:
            self._store = Store(self.folder / "platform.db")
            self.registry = Registry(self._store, self._books, self.files)
            await self._start_http()
            await self._start_mqtt()
        except OSError as error:
            await self.stop()
            raise PlatformError(f"cannot listen on {self.host}: {error}") from error
        except BaseException:
            await self.stop()
            raise
        self._ticking = asyncio.create_task(self._keep_ticking())
        content = json.dumps(
            {"url": f"http://{_near(self.host)}:{self.http_port}/api/", "token": self.token}
        )
        file = os.open(self.folder / API_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(file, "w") as stream:
            stream.write(content)

    async def stop(self):
        """Twice is harmless."""
        if self._store:
            with suppress(FileNotFoundError):
                (self.folder / API_FILE).unlink()
        if self._ticking:
            self._ticking.cancel()
            await asyncio.wait([self._ticking])
        if self._link:
            await self._link.stop()
        if self._broker:
            await self._broker.stop()
        if self._runner:
            await self._runner.cleanup()
        if self._store:
            self._store.close()
        self._ticking = self._link = self._broker = self._runner = self._store = None

    async def _start_http(self):
        app = web.Application()
        self.files.add_routes(app)
        api.add_routes(app, self)
        # A download that runs when the platform stops does not hold it up.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        sock = socket.create_server((self.host, self.http_port))
        if self.files.throttle:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, files.SEND_BUFFER)
        self.http_port = sock.getsockname()[1]
        await web.SockSite(self._runner, sock).start()

    async def _start_mqtt(self):
        address, login = self._outside, self._own_login
        if address:
            client_id = self._store.setting("client_id", login[0])
        else:
            client_id = login[0]
            self._broker = Broker(self.host, self.mqtt_port, self._may_log_in)
            await self._broker.start()
            address = link.Address(_near(self.host), self._broker.port, login[1], login[2])
        self.mqtt_port = address.port
        self._link = link.Link(
            address, client_id, not self._broker, self._received, self._link_changed
        )
        self._link.start()
        if self._broker:
            await self._until(lambda: self.connected, _START_S)

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
        item = self.registry.find_firmware(firmware)
        if devices is None:
            chosen = [
                device for device in self._books.devices.values() if device.product == item.product
            ]
        else:
            chosen = [
                self.registry.find_device(identifier) for identifier in dict.fromkeys(devices)
            ]
            for device in chosen:
                if device.product != item.product:
                    raise PlatformError(
                        f"device {device.identifier} is not of product {item.product}"
                    )
        now = time.time()
        number = max(self._books.batches, default=0) + 1
        token = secrets.token_hex(4)
        batch = Batch(
            number, item.id, policy, timeout_s, retries, interval_s, now, now + valid_s, token
        )
        left_out, effects = self._logic.start(now, batch, chosen)
        self._carry_out(effects)
        self._tick()
        return {"batch": number, "left_out": left_out}

    def abort(self, batch: int):
        """Raises PlatformError when it has ended, or is unknown."""
        self._carry_out(self._logic.abort(time.time(), self._batch(batch)))

    def batches(self) -> list[dict]:
        """All batches, oldest first: `batch` without its rows."""
        return [self._summary(batch) for batch in self._books.batches.values()]

    def batch(self, batch: int) -> dict:
        """
        A batch: its settings, state, at_rest, firmware (name), version, rows. Raises
        PlatformError.
        """
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
        Until all its devices are at rest. Returns status(batch). Raises TimeoutError after timeout
        seconds.
        """
        found = self._batch(batch)
        await self._until(lambda: self._books.at_rest(found), timeout)
        return self.status(batch)

    async def wait_seen(self, devices: list[str], timeout: float):
        """
        Until all these devices have reported a version. Raises TimeoutError after timeout seconds.
        """
        found = [self.registry.find_device(identifier) for identifier in devices]
        await self._until(lambda: all(device.version for device in found), timeout)

    def events(self, device: str) -> list[dict]:
        """The log of a device, oldest first: time, batch, kind, text. Raises PlatformError."""
        return self._store.events(self.registry.find_device(device).key)

    def publish(self, topic: str, payload: str | bytes, retain: bool = False):
        """Any message to any topic, past the logic: for tests of devices."""
        self._link.publish(topic, payload, retain)

    def url_of(self, firmware: int | str) -> str:
        """Where devices fetch it."""
        return self._url_of(self.registry.find_firmware(firmware))

    # What happens

    def _received(self, topic, payload, retained):
        parts = topic.split("/")  # "", sys, product, identifier, ota, firmware, name
        if not retained and len(parts) == 7:
            self._carry_out(
                self._logic.receive(time.time(), parts[2], parts[3], parts[6], payload)
            )

    def _link_changed(self, connected):
        self.connected = connected
        if connected:
            self._carry_out(self._logic.listening(time.time()))
            self._tick()
        self._spread_news()

    async def _keep_ticking(self):
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                self._tick()
            except Exception:  # a full disk, say: what is due stays due
                _log.exception("tick")

    def _tick(self):
        # While the broker is away nothing can be sent, and nobody be late.
        if self.connected:
            self._carry_out(self._logic.tick(time.time()))

    def _carry_out(self, effects):
        now = time.time()
        records, events, messages = {}, [], []
        for effect in effects:
            if isinstance(effect, logic.Changed):
                records[id(effect.record)] = effect.record
            elif isinstance(effect, logic.Note):
                product, identifier = effect.key
                line = {"batch": effect.batch, "kind": effect.kind, "text": effect.text}
                events.append({"time": now, "product": product, "identifier": identifier, **line})
            else:
                messages.append(effect)
        if records or events:
            self._store.save(records.values(), events)
        for message in messages:
            self._link.publish(message.topic, message.payload)
        if effects:
            self._spread_news()

    def _spread_news(self):
        self._news.set()
        self._news = asyncio.Event()

    async def _until(self, condition, timeout):
        # TimeoutError is asyncio's own class before Python 3.11; callers get the one that they
        # know.
        deadline = time.monotonic() + timeout
        while not condition():
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError as error:
                raise TimeoutError(f"not within {timeout:g} s") from error

    def _may_log_in(self, client_id, user, password):
        if client_id == self._own_login[0]:
            return user == self._own_login[1] and same(password, self._own_login[2])
        product, _, identifier = user.partition("&")
        device = self._books.devices.get((product, identifier))
        return device is not None and client_id == identifier and same(password, device.secret)

    def _batch(self, number) -> Batch:
        if number not in self._books.batches:
            raise PlatformError(f"no batch {number}")
        return self._books.batches[number]

    def _summary(self, batch):
        firmware = self._books.firmware[batch.firmware]
        settings = {
            key: value for key, value in asdict(batch).items() if key not in ("token", "aborted")
        }
        return {
            **settings,
            "firmware": firmware.name,
            "version": firmware.version,
            "state": self._books.state(batch),
            "at_rest": self._books.at_rest(batch),
        }

    def _url_of(self, firmware: Firmware):
        base = self.public_url or f"http://{_far(self.host)}:{self.http_port}"
        return f"{base.rstrip('/')}/firmware/{firmware.id}/{firmware.file}"


def _near(host):
    # The address for this machine.
    return _ANY.get(host, host)


def _far(host):
    # The address for devices. No packet is sent: connecting UDP only asks which way it would go.
    if host not in _ANY:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address, RFC 5737
            return probe.getsockname()[0]
        except OSError:
            return _near(host)
