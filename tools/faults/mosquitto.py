"""
Mosquitto in the place of the scripted broker: the part of Broker's interface that World uses.

Started by a case and ended with it; the platform talks to it by paho-mqtt. Where it comes from:
`make mosquitto`.
"""

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt

from tools import servers
from tools.platform import wire

from .scene import NAME, PRODUCT, SECRET

_HOST = "127.0.0.1"
_START_S = 5
_LOOK_S = 0.01

_TOPICS = (wire.UPGRADE_REPLY, wire.PROGRESS, wire.VERSION, wire.GET)
_PLATFORM = "platform", "platform-secret"
_USER = f"{PRODUCT}&{NAME}"


def program() -> str | None:
    """Path of mosquitto, None = it is not installed."""
    try:
        return servers.program("mosquitto")
    except FileNotFoundError:
        return None


class Mosquitto:
    """
    on_message: as Broker has it, retained messages left out; on_session: not called, nobody tells
    the platform; folder: a new one. Attributes: password: what it expects of the device, from the
    next start on, None = anything; errors: always empty, see log().
    """

    def __init__(
        self,
        on_message: Callable[[str, bytes], None],
        on_session: Callable[[bool], None] | None = None,
        *,
        folder: Path,
        password: str | None = None,
    ):
        folder.mkdir()
        self._folder = folder
        self.password = password
        self.on_message = on_message
        self.errors: list[str] = []
        self.port = 0
        self._process: subprocess.Popen | None = None
        self._platform: mqtt.Client | None = None

    async def start(self, port: int = 0) -> int:
        """
        port: 0 = the one that it had before. Returns the port. Raises OSError with its log when it
        does not come up.
        """
        self.port = port or self.port
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._start)
        return self.port

    async def stop(self) -> None:
        """Ends it, and all connections. Harmless when it does not run."""
        await asyncio.to_thread(self._stop)

    def publish(self, topic: str, payload: bytes, qos=1, retain=False) -> None:
        """As the platform; dropped while the broker is down."""
        if self._platform:
            self._platform.publish(topic, payload, qos, retain)

    def takeover(self) -> None:
        """Another client logs in with the device's client id, and goes away again."""
        other = _client(NAME, _USER, self.password or SECRET)
        other.connect(_HOST, self.port)
        other.disconnect()

    def log(self) -> str:
        """What it has said, since the first start."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _start(self) -> None:
        self._process = self._run(self.port)
        if not self._connect(self.port):
            self._stop()
            raise OSError(f"mosquitto does not start: {self.log()}")

    def _run(self, port: int) -> subprocess.Popen:
        lines = [f"listener {port} {_HOST}", "persistence false", "user root", "log_dest stderr"]
        if self.password is None:
            lines.append("allow_anonymous true")
        else:
            passwords = self._folder / "passwords"
            passwords.touch(0o600)
            for login in (_PLATFORM, (_USER, self.password)):
                tool = servers.program("mosquitto_passwd")
                subprocess.run([tool, "-b", passwords, *login], check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, ""]), encoding="utf-8")
        with self._log.open("ab") as log:
            return subprocess.Popen([program(), "-c", config], stderr=log)

    def _connect(self, port: int) -> bool:
        # The platform. False: that is not our broker, or it is none.
        client = _client("platform", *_PLATFORM)
        subscribed = threading.Event()
        client.on_message = self._hear
        client.on_subscribe = lambda *_: subscribed.set()
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                client.connect(_HOST, port)
                break
            except ConnectionRefusedError:
                time.sleep(_LOOK_S)
        else:
            return False
        client.loop_start()
        client.subscribe([(wire.topic((PRODUCT, NAME), name), 1) for name in _TOPICS])
        self._platform = client
        return subscribed.wait(_START_S) and self._process.poll() is None

    def _stop(self) -> None:
        if self._platform:
            self._platform.disconnect()
            self._platform.loop_stop()
            self._platform = None
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _hear(self, client, userdata, message: mqtt.MQTTMessage) -> None:
        if not message.retain:
            self._loop.call_soon_threadsafe(self._told, message.topic, message.payload)

    def _told(self, topic: str, payload: bytes) -> None:
        self.on_message(topic, payload)  # looked up late: a case may listen, too


def _client(client_id: str, user: str, password: str) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False)
    client.username_pw_set(user, password)
    return client
