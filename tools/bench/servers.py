"""nginx and mosquitto, each with a folder and a port of its own, while a benchmark runs."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import paho.mqtt.client as mqtt

from ota.protocol import _PREFIX as PREFIX
from tools.servers import HOST, free_port, mosquitto, program, running

PRODUCT, NAME = "bench", "dev"

_NGINX = """
daemon off;
master_process off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    server {{
        listen {host}:{port};
        root {folder}/files;
        # The same, as a network brings it: in pieces, with waits between them.
        location /slow/ {{
            alias {folder}/files/;
            limit_rate 4m;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yields its port and the folder whose files it serves."""
    files = folder / "files"
    files.mkdir(parents=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX.format(folder=folder, host=HOST, port=port, user=user)
    (folder / "nginx.conf").write_text(text)
    command = [program("nginx"), "-e", folder / "error.log", "-c", folder / "nginx.conf"]
    with running(command, port, folder):
        yield port, files


class Broker:
    """
    mosquitto, and the platform's part of one upgrade: the device that tells its version gets the
    command. messages, size: what passed, payloads in bytes; said: what the device said.
    """

    def __init__(self, port: int):
        self.port = port
        self.command: bytes = b""  # none
        self.said: list[tuple[str, dict]] = []
        self.messages = self.size = 0
        self._lock = threading.Lock()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect(HOST, port)
        self._client.subscribe("/sys/#", 1)
        self._client.loop_start()

    def offer(self, url: str, content: bytes, version: str = "2.0.0") -> None:
        """From now on that is the command; counts from zero."""
        data = {
            "firmwareVersion": version,
            "url": url,
            "sign": md5(content).hexdigest(),
            "signMethod": "MD5",
            "policy": "standard",
            "size": len(content),
        }
        message = {"msgId": str(time.monotonic_ns()), "version": "1.0", "data": data}
        with self._lock:
            self.command = json.dumps(message).encode()
            self.said = []
            self.messages = self.size = 0

    def offer_nothing(self) -> None:
        """From now on there is no command."""
        with self._lock:
            self.command = b""

    def _on_message(self, _client, _data, message) -> None:
        name = message.topic.rsplit("/", 1)[1]
        with self._lock:
            self.messages += 1
            self.size += len(message.payload)
            if name in ("upgrade", "get_reply"):
                return
            self.said.append((name, json.loads(message.payload)["data"]))
            if (
                self.command
                and name == "version"
                and self.said[-1][1]["firmwareVersion"] != "2.0.0"
            ):
                self._client.publish(PREFIX % (PRODUCT, NAME) + "upgrade", self.command, 1)

    def statuses(self) -> list[str]:
        """The statuses that the device told, in order."""
        with self._lock:
            return [data["status"] for name, data in self.said if name == "progress"]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A mosquitto that lets everybody in, on loopback."""
    with mosquitto(folder, "allow_anonymous true") as port:
        made = Broker(port)
        try:
            yield made
        finally:
            made.close()
