"""
The platform put together: store, logic, broker, MQTT client, file server, API and console.

One event loop has the embedded broker and the web server, the engine a thread of its own.
"""

import asyncio
import errno
import json
import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from tools.platform import course, files, link, rights
from tools.platform.access import Access
from tools.platform.broker import Broker
from tools.platform.client import API_FILE
from tools.platform.engine import EVENTS_MAX, Engine
from tools.platform.model import Firmware, Key, PlatformError, check_id, same
from tools.platform.registry import Registry
from tools.platform.store import Store
from tools.platform.urls import Signer
from tools.sign.keys import load_private
from tools.sign.manifest import SignError

_START_S = 10.0
_TICK_S = 0.5
_SEND_BUFFER = 8 * 1024  # bytes, when downloads have a brake: else "sent" is far ahead of a cut
_REFUSED_S = 60.0  # between two lines about refused logins of one name
_REFUSED_MAX = 1000  # names
_NAME_MAX = 130  # characters of a user name: a product key, &, an identifier
_log = logging.getLogger(__name__)
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses: one of this machine


class Platform:
    """
    The platform; what it can do is in its `engine`, `registry` and `access`, which are there when
    it has started.

    folder: keeps everything, made when it is missing; host: where to listen; mqtt_port, http_port:
    0 = any free one; broker: mqtt://host:port of a broker outside, None = the embedded one;
    throttle: bytes a second for each download, None = no brake; public_url: how devices reach the
    files, None = as it listens; reply_s: the time for a reply to a command; signing_key: the
    file of the private key that signs what is uploaded, None = nothing is signed here; database:
    URL of a PostgreSQL, None = SQLite in the folder; worker: name of this one among those that
    share data base and broker; events: lines of logs that are kept; proxy: True = one on this
    machine stands before it, and tells who calls (X-Forwarded-For, X-Forwarded-Proto).
    Raises PlatformError for a broker, URL, data base or key that is none.
    """

    engine: Engine
    registry: Registry
    access: Access

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
        database: str | None = None,
        worker: str = "1",
        events: int = EVENTS_MAX,
        proxy: bool = False,
    ):
        if public_url and not public_url.startswith(("http://", "https://")):
            raise PlatformError(f"URL {public_url!r}: it begins with http:// or https://")
        self.folder, self.host = Path(folder), host
        self.mqtt_port, self.http_port = mqtt_port, http_port
        self.public_url = public_url
        self.token = secrets.token_hex(16)  # of the API
        self.files = files.Files(self.folder / "firmware", throttle)
        self._outside = link.address_of(broker) if broker else None
        self._reply_s, self._database, self._events = reply_s, database, events
        self._worker, self._proxy = check_id(worker, "worker"), proxy
        try:
            self._key = load_private(Path(signing_key)) if signing_key else None
        except (OSError, SignError) as error:
            raise PlatformError(f"cannot sign: {error}") from error
        # Nobody else may be the platform: also its client id is a secret.
        self._login = "platform-" + secrets.token_hex(8), "platform", secrets.token_hex(16)
        self._store = self._broker = self._link = self._server = None
        self._refused: dict[str, float] = {}  # user names, and when that was told

    async def start(self):
        """
        Raises PlatformError when the folder or a port is taken. Waits for the embedded broker
        only.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._store = Store(self.folder, self._database)
            with self._store.begin() as tx:
                self._signer = Signer(tx.setting("url_key", secrets.token_hex(32)))
            self.files.signer = self._signer
            self.files.tidy()
            self._loop = asyncio.get_running_loop()
            self.registry = Registry(self._store, self.files, self._key, self._show_out)
            self.access = Access(self._store)
            tick_s = min(_TICK_S, self._reply_s / 4)
            self.engine = Engine(self._store, self._url_of, self._reply_s, tick_s, self._events)
            await self._start_http()
            await self._start_mqtt()
            self._write_api_file()
        except OSError as error:
            await self.stop()
            taken = error.errno == errno.EADDRINUSE
            hint = ": stop what has it, or name another port, 0 = any free one" if taken else ""
            raise PlatformError(f"cannot start: {error}{hint}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self):
        """Twice is harmless."""
        if self._store:  # so the folder is ours
            with suppress(FileNotFoundError):
                (self.folder / API_FILE).unlink()
            if hasattr(self, "engine"):
                await asyncio.to_thread(self.engine.stop)
        if self._link:
            await asyncio.to_thread(self._link.stop)
        if self._broker:
            await self._broker.stop()
        if self._server:
            await self._server.stop()
        if self._store:
            self._store.close()
        self._store = self._broker = self._link = self._server = None

    def publish(self, topic: str, payload: str | bytes, retain: bool = False):
        """Any message to any topic, past the logic: for tests of devices."""
        self._link.publish(topic, payload, retain)

    def url_of(self, firmware: Firmware, device: str, seconds: float) -> str:
        """Where that device may fetch it, for so long."""
        return self._url_of(firmware, ("", device), time.time() + seconds)

    def _url_of(self, firmware: Firmware, key: Key, until: float) -> str:
        base = self.public_url or f"http://{_in_url(_far(self.host))}:{self.http_port}"
        return self._signer.url(base, firmware, key, until)

    async def _start_http(self):
        from tools.platform import web  # FastAPI takes its time, and not all need it

        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.create_server((self.host, self.http_port), family=family)
        if self.files.throttle:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.http_port = sock.getsockname()[1]
        self._server = web.Server(web.application(self), sock, self._proxy)
        await self._server.start()

    async def _start_mqtt(self):
        client_id, user, password = self._login
        outside = self._outside is not None
        if outside:
            address = self._outside
            with self._store.begin() as tx:
                client_id = tx.setting("client_id", client_id)
            if self._store.shared:
                client_id += "-" + self._worker
        else:
            asked = self._may_log_in, self._may_use
            self._broker = Broker(self.host, self.mqtt_port, *asked, client_id)
            await self._broker.start()
            address = link.Address(_near(self.host), self._broker.port, user, password)
        self.mqtt_port = address.port
        engine = self.engine
        # The embedded broker keeps nothing, and has one platform.
        shared = outside and self._store.shared
        self._link = engine.link = link.Link(
            address, client_id, outside, shared, engine.received, engine.link_changed
        )
        engine.start()
        self._link.start()
        if self._broker:
            await asyncio.to_thread(engine.until, lambda: engine.connected, _START_S)

    def _may_log_in(self, client_id, user, password):
        if client_id == self._login[0]:
            return user == self._login[1] and same(password, self._login[2])
        why = self.registry.why_not(client_id, user, password)
        if why:
            self._tell_refused(user[:_NAME_MAX], why)
        return not why

    def _tell_refused(self, user, why):
        # Who waits for a device looks here. It tries again and again, and so may anybody.
        now = time.monotonic()
        if len(self._refused) >= _REFUSED_MAX:
            self._refused.clear()
        if now - self._refused.get(user, -_REFUSED_S) >= _REFUSED_S:
            self._refused[user] = now
            _log.warning("MQTT login of %r is refused: %s", user, why)

    @property
    def reached_at(self) -> str:
        """The address of this machine for others; where it listens, if it is one alone."""
        return _far(self.host)

    def _show_out(self, identifier):
        # A broker outside asks who it knows by itself.
        if self._broker:
            self._loop.call_soon_threadsafe(self._broker.show_out, identifier)

    def _may_use(self, client_id, user, topic):
        return client_id == self._login[0] or rights.may(user, topic)

    def _write_api_file(self):
        url = f"http://{_in_url(_near(self.host))}:{self.http_port}/api/"
        file = os.open(self.folder / API_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(file, "w") as stream:
            json.dump({"url": url, "token": self.token}, stream)


def _in_url(host):
    return f"[{host}]" if ":" in host else host


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
