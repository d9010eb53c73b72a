"""
The platform put together: store, logic, broker, MQTT client, file server and API, in one event
loop.
"""

import asyncio
import json
import logging
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from tools.platform import api, course, files, link
from tools.platform.broker import Broker
from tools.platform.client import API_FILE
from tools.platform.engine import Engine
from tools.platform.logic import Upgrades
from tools.platform.model import Firmware, PlatformError, same
from tools.platform.registry import Registry
from tools.platform.store import Store
from tools.sign.keys import load_private
from tools.sign.manifest import SignError

_START_S = 10.0
_TICK_S = 0.5
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses: one of this machine
_log = logging.getLogger(__name__)


class Platform:
    """
    The local platform; what it can do is in its `engine` and `registry`, which are there when it
    has started.

    folder: keeps everything, made when it is missing; host: where to listen; mqtt_port, http_port:
    0 = any free one; broker: mqtt://host:port of a broker outside, None = the embedded one;
    throttle: bytes a second for each download, None = no brake; public_url: how devices reach the
    file server, None = as it listens; reply_s: the time for a reply to a command; signing_key: the
    file of the private key that signs what is uploaded, None = nothing is signed here.
    Raises PlatformError for a broker, URL or key that is none.
    """

    engine: Engine
    registry: Registry

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
        signing_key: Path | None = None,
    ):
        if public_url and not public_url.startswith(("http://", "https://")):
            raise PlatformError(f"URL {public_url!r}: it begins with http:// or https://")
        self.folder, self.host = Path(folder), host
        self.mqtt_port, self.http_port = mqtt_port, http_port
        self.public_url = public_url
        self.token = secrets.token_hex(16)  # of the API
        self.files = files.Files(self.folder / "firmware", throttle)
        self._outside = link.address_of(broker) if broker else None
        self._reply_s = reply_s
        try:
            self._key = load_private(Path(signing_key)) if signing_key else None
        except (OSError, SignError) as error:
            raise PlatformError(f"cannot sign: {error}") from error
        # Nobody else may be the platform: also its client id is a secret.
        self._login = "platform-" + secrets.token_hex(8), "platform", secrets.token_hex(16)
        self._store = self._broker = self._link = self._runner = self._ticking = None

    async def start(self):
        """
        Raises PlatformError when the folder or a port is taken. Waits for the embedded broker
        only.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._store = Store(self.folder / "platform.db")
            upgrades = Upgrades(self.url_of, self._reply_s)
            self.registry = Registry(self._store, upgrades.books, self.files, self._key)
            self.engine = Engine(upgrades, self.registry, self._store)
            await self._start_http()
            await self._start_mqtt()
            self._write_api_file()
        except OSError as error:
            await self.stop()
            raise PlatformError(f"cannot start: {error}") from error
        except BaseException:
            await self.stop()
            raise
        self._ticking = asyncio.create_task(self._tick(min(_TICK_S, self._reply_s / 4)))

    async def stop(self):
        """Twice is harmless."""
        if self._store:  # so the folder is ours
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
        self._store = self._broker = self._link = self._runner = self._ticking = None

    def publish(self, topic: str, payload: str | bytes, retain: bool = False):
        """Any message to any topic, past the logic: for tests of devices."""
        self._link.publish(topic, payload, retain)

    def url_of(self, firmware: Firmware) -> str:
        """Where devices fetch it."""
        base = self.public_url or f"http://{_far(self.host)}:{self.http_port}"
        return f"{base.rstrip('/')}/firmware/{firmware.id}/{firmware.file}"

    async def _start_http(self):
        app = web.Application()
        self.files.add_routes(app)
        api.add_routes(app, self)
        # A download that runs when the platform stops does not hold it up.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        sock = socket.create_server((self.host, self.http_port))
        self.http_port = sock.getsockname()[1]
        await web.SockSite(self._runner, sock).start()

    async def _start_mqtt(self):
        client_id, user, password = self._login
        if self._outside:
            address = self._outside
            client_id = self._store.setting("client_id", client_id)
        else:
            self._broker = Broker(self.host, self.mqtt_port, self._may_log_in)
            await self._broker.start()
            address = link.Address(_near(self.host), self._broker.port, user, password)
        self.mqtt_port = address.port
        engine = self.engine
        lasting = self._outside is not None  # the embedded broker keeps nothing
        self._link = link.Link(address, client_id, lasting, engine.received, engine.link_changed)
        engine.link = self._link
        self._link.start()
        if self._broker:
            await engine.until(lambda: engine.connected, _START_S)

    def _may_log_in(self, client_id, user, password):
        if client_id == self._login[0]:
            return user == self._login[1] and same(password, self._login[2])
        return self.registry.may_log_in(client_id, user, password)

    async def _tick(self, seconds):
        while True:
            await asyncio.sleep(seconds)
            try:
                self.engine.tick()
            except Exception:  # a full disk, say; whoever waits is asked again
                _log.exception("tick")

    def _write_api_file(self):
        url = f"http://{_near(self.host)}:{self.http_port}/api/"
        file = os.open(self.folder / API_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(file, "w") as stream:
            json.dump({"url": url, "token": self.token}, stream)


def _near(host):
    # The address for this machine.
    return _ANY.get(host, host)


def _far(host):
    # The address for devices. No packet is sent: connecting UDP only asks which way it would go.
    if host not in _ANY:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation, RFC 5737
            return probe.getsockname()[0]
        except OSError:
            return _near(host)
