"""
What a fleet costs the platform: devices of the protocol alone (an MQTT client each, no flash), in
one batch, through mosquitto, over PostgreSQL. The platform is a process of its own.
"""

import asyncio
import contextlib
import json
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
import sqlalchemy as sa

from ota import protocol
from tools import servers
from tools.platform import rights, tables, wire
from tools.platform.client import Client
from tools.platform.model import PUSHED, SUCCEEDED, UPGRADING
from tools.platform.model import Device as Record
from tools.platform.store import Store

SIZES = (500, 5000)
PRODUCT, OLD, NEW = "fleet", "1.0.0", "1.1.0"
_LOGIN = "platform", secrets.token_hex(8)
_CONNECT_S = 0.002  # between two; the protocol's 100 a second would take most of the time
_PAUSE_S = (0.2, 1.0)  # between two reports of a device
_DOWNLOADING = range(0, 100, 10)
_LATER = (("verifying", 96), ("burning", 97), ("restarting", 98))
# What a device says in an upgrade: the reply, its progress, its new version.
MESSAGES = 1 + len(_DOWNLOADING) + len(_LATER) + 1
_WAIT_S = 900
_MISC_S = 5.0


class FleetError(Exception):
    """Something that should have happened did not."""


class _Device:
    """One MQTT connection in the running event loop, and what a device says."""

    def __init__(self, identifier: str, secret: str, port: int):
        self._key = PRODUCT, identifier
        self._loop = asyncio.get_running_loop()
        self._upgrading: asyncio.Task | None = None
        self.ready = self._loop.create_future()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, identifier)
        client.username_pw_set(f"{PRODUCT}&{identifier}", secret)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = lambda *args: self._loop.add_reader(args[2], client.loop_read)
        client.on_socket_close = lambda *args: self._loop.remove_reader(args[2])
        client.on_socket_register_write = lambda *args: self._loop.add_writer(
            args[2], client.loop_write
        )
        client.on_socket_unregister_write = lambda *args: self._loop.remove_writer(args[2])
        self.client = client
        client.connect(servers.HOST, port, keepalive=300)

    def _on_connect(self, client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            self.ready.set_exception(FleetError(f"{self._key}: {reason}"))
        else:
            topics = [wire.topic(self._key, name) for name in (wire.UPGRADE, wire.GET_REPLY)]
            client.subscribe([(topic, 1) for topic in topics])

    def _on_subscribe(self, *_):
        self._say(wire.VERSION, {"firmwareVersion": OLD}, "v")
        self._say(wire.GET, {"firmwareVersion": ""}, "g")
        self.ready.set_result(None)

    def _on_message(self, _client, _userdata, message):
        if message.topic.endswith(wire.UPGRADE) and self._upgrading is None:
            msg_id = json.loads(message.payload)["msgId"]
            self._upgrading = self._loop.create_task(self._upgrade(msg_id))

    async def _upgrade(self, msg_id):
        self._say(wire.UPGRADE_REPLY, {}, msg_id, code=protocol._ACCEPTED)
        steps = [("downloading", progress) for progress in _DOWNLOADING]
        for status, progress in (*steps, *_LATER):
            await asyncio.sleep(random.uniform(*_PAUSE_S))
            data = {"firmwareVersion": NEW, "status": status, "progress": progress}
            self._say(wire.PROGRESS, data, msg_id, qos=0)
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        self._say(wire.VERSION, {"firmwareVersion": NEW}, "v")

    def _say(self, name, data, msg_id, qos=1, **more):
        message = {"msgId": msg_id, "version": "1.0", **more, "data": data}
        self.client.publish(wire.topic(self._key, name), json.dumps(message), qos)


@dataclass
class Found:
    """
    Of one batch. seconds: from its begin until all are at rest; messages_s: messages of devices a
    second, in that time; cpu_ms: of the platform, a device; memory_mb: its most, resident; lost:
    messages and statuses that the log should have and has not, or has twice.
    """

    devices: int
    seconds: float
    messages_s: float
    cpu_ms: float
    memory_mb: float
    lost: int


def measure(number: int) -> Found:
    """One batch over that many devices. Raises FleetError, FileNotFoundError: no server."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.postgres() as url,
        _broker(Path(folder) / "broker") as (port, let_in),
    ):
        folder = Path(folder)
        login = ":".join(_LOGIN)
        with _platform(folder, url, f"mqtt://{login}@{servers.HOST}:{port}") as process:
            client = Client(folder / "platform")
            client.post("products", key=PRODUCT)
            devices = [(f"d{item:05}", secrets.token_hex(16)) for item in range(number)]
            store = Store(folder, url)
            with store.begin() as tx:
                tx.insert([Record(PRODUCT, name, secret, name) for name, secret in devices])
            let_in([(PRODUCT, *device) for device in devices])
            image = folder / "a.bin"
            image.write_bytes(b"\xe9" + bytes(1000))
            client.upload(image, PRODUCT, NEW, "new")
            try:
                seconds, cpu = asyncio.run(_play(devices, port, client, process))
                lost = _lost(store, number)
            finally:
                store.close()
            memory = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            return Found(
                number,
                round(seconds, 1),
                round(number * MESSAGES / seconds),
                round(cpu * 1000 / number, 2),
                round(int(memory[1]) / 1024),
                lost,
            )


@contextlib.contextmanager
def _broker(folder) -> Iterator:
    folder.mkdir()
    rights.write(folder, [], _LOGIN)
    lines = ["allow_anonymous false", f"password_file {folder / rights.PASSWORDS}"]
    lines += [f"acl_file {folder / rights.TOPICS}", "max_queued_messages 0"]
    lines += ["max_inflight_messages 100", "persistence false"]
    with servers.mosquitto(folder, *lines) as port:

        def let_in(devices):
            rights.write(folder, devices, _LOGIN)
            servers.reload(folder)
            time.sleep(1)  # it says nothing when it has read them

        yield port, let_in


@contextlib.contextmanager
def _platform(folder, url, broker) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "tools", "platform", "--folder", folder / "platform", "serve"]
    command += ["--json", "--http-port", "0", "--database", url, "--broker", broker]
    with (folder / "platform.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        if not process.stdout.readline():
            raise FleetError((folder / "platform.log").read_text()[-1000:])
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


async def _play(devices, port, client, process):
    fleet = []
    beating = asyncio.create_task(_misc(fleet))
    for name, secret in devices:
        fleet.append(_Device(name, secret, port))
        await asyncio.sleep(_CONNECT_S)
    await asyncio.wait_for(asyncio.gather(*(device.ready for device in fleet)), _WAIT_S)
    await _until(lambda: _seen(client, len(devices)))
    before, began = process.cpu_times(), time.monotonic()
    begun = client.post("batches", firmware="new", retries=0, timeout_s=_WAIT_S)
    if begun["left_out"]:
        raise FleetError(f"{len(begun['left_out'])} devices were left out")
    await _until(lambda: client.get("batches", begun["batch"])["at_rest"])
    seconds, after = time.monotonic() - began, process.cpu_times()
    statuses = client.get("batches", begun["batch"])["statuses"]
    if statuses != {SUCCEEDED: len(devices)}:
        raise FleetError(f"they ended as {statuses}")
    beating.cancel()
    for device in fleet:
        device.client.disconnect()
    return seconds, after.user + after.system - before.user - before.system


def _seen(client, number):
    rows = client.pages("devices", by="identifier")
    return sum(row["version"] == OLD for row in rows) == number


async def _misc(fleet):
    while True:
        await asyncio.sleep(_MISC_S)
        for device in list(fleet):
            device.client.loop_misc()


async def _until(condition):
    end = time.monotonic() + _WAIT_S
    while not await asyncio.to_thread(condition):
        if time.monotonic() > end:
            raise FleetError(f"not within {_WAIT_S} s")
        await asyncio.sleep(0.5)


def _lost(store, number):
    # What each device said at QoS 1, and came to by that, once. (Progress is QoS 0, and may
    # overtake the reply, so that one who upgrades never was To be Upgraded.)
    kind, text = tables.events.c.kind, tables.events.c.text
    query = sa.select(kind, text, sa.func.count()).group_by(kind, text)
    with store.begin() as tx:
        found = {(row[0], row[1]): row[2] for row in tx.rows_of(query)}
    said = [(wire.UPGRADE_REPLY, str(protocol._ACCEPTED)), (wire.VERSION, NEW)]
    said += [("status", status) for status in (PUSHED, UPGRADING, SUCCEEDED)]
    return sum(abs(number - found.get(line, 0)) for line in said)


def figures(found: list[Found]) -> dict:
    """What goes into build/bench.json. found: by size, the smallest first."""
    small, large = found[0], found[-1]
    return {
        "fleet": [asdict(item) for item in found],
        "fleet_messages_s": large.messages_s,
        "fleet_memory_mb": max(item.memory_mb for item in found),
        "fleet_cost_ratio": round(large.cpu_ms / small.cpu_ms, 2),
        "fleet_lost": sum(item.lost for item in found),
    }
