"""
The world of one case: a simulated device, a platform, a broker, a file server, and a record of all
that was said and started.

Broker and file server run in one event loop in one thread of this process; the device is a process
of its own.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tools.device.device import Device
from tools.device.net import Relay
from tools.device.port.flash import Flash
from tools.platform import wire
from tools.platform.model import Task

from .backend import Backend
from .broker import Broker
from .ports import Port
from .record import Boot, Heard, Record
from .scene import NEW, OLD, PLACES, SCENES, SLOT, Scene, boot_py, image
from .web import Web

PATIENCE = 40  # seconds: no figure, only an end for what never comes
OPTIONS = "dict(tries=2, stall_s=1, total_s=20, trial_s=5)"

_CALL_S = 10
_LOOK_S = 0.02
_LINES = 60


class Failed(Exception):
    """A case that did not end as it has to; the text says in what."""


class World:
    """
    folder: a new one; scene: where it begins, None = the first of SCENES; fault: of the flash, see
    port/flashfault.py; options: a dict's text, for ota.init; more: code for the end of boot.py;
    flash: content of the chip, None = the scene's; broker: makes the broker, as Broker does from
    its two callbacks; relays: between device and servers, so that device.link() works; device:
    more options of Device. Attributes: record, approved (version to image), broker, web, backend,
    device, ports (of broker and web, as the device knows them), at_boot (called as Device's
    on_boot, after the start was recorded). A context manager.
    """

    def __init__(
        self,
        folder: Path,
        scene: Scene | None = None,
        fault: str | None = None,
        options: str = OPTIONS,
        more: str = "",
        flash: bytes | None = None,
        broker: Callable = Broker,
        relays: bool = False,
        **device,
    ):
        self.scene = scene = scene or SCENES[0]
        self.record = Record()
        self.approved = {OLD: image(OLD)}
        self.news = threading.Condition()
        self.at_boot: Callable[[Flash, str | None, int], None] | None = None
        self.broker = broker(self._message, self._session)
        self.web = Web()
        self._held = Port(), Port()
        self.ports = call(self._listen())
        self._relays = [Relay("127.0.0.1", port) for port in self.ports] if relays else []
        if relays:
            self.ports = tuple(relay.port for relay in self._relays)
        self.backend = Backend(self._say, self.url_of)
        self.device = Device(
            folder,
            self._relays,
            generation=scene.generation,
            fault=fault,
            starts_per_minute=1000,
            on_line=self._line,
            on_boot=self._boot,
            **device,
        )
        self.device.fs.mkdir(parents=True)
        self.device.flash_path.write_bytes(scene.flash() if flash is None else flash)
        self.device.put("boot.py", boot_py(self.ports[0], options, more))

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.device.stop()
        for relay in self._relays:
            relay.close()
        call(self._close())
        for port in self._held:
            port.close()

    def url_of(self, version: str) -> str:
        return f"http://127.0.0.1:{self.ports[1]}/{version}.bin"

    def offer(
        self, version: str = NEW, size: int | None = None, app: str | None = None, **batch
    ) -> Task:
        """Approves an image, serves it, and begins a batch. batch: of Backend.offer."""
        content = self.serve(version, size, app)
        return self.backend.offer(version, content, **batch)

    def serve(self, version: str, size: int | None = None, app: str | None = None) -> bytes:
        """Approves an image and puts it onto the file server. Returns it."""
        self.approved[version] = content = image(version, size, app)
        self.web.files[f"/{version}.bin"] = content
        return content

    def until(self, condition: Callable[[], object], what: str, most: float = PATIENCE):
        """Waits for something. Returns what condition() gave. Raises Failed."""
        end = time.monotonic() + most
        while not (found := condition()):
            if time.monotonic() > end:
                raise Failed(f"never: {what}\n{self.story()}")
            self.backend.tick()
            with self.news:
                self.news.wait(_LOOK_S)
        return found

    def settle(self, most: float = PATIENCE) -> None:
        """Until the device has nothing to say any more."""
        record = self.record
        self.until(
            lambda: self.device.running and record.last_idle > record.last_heard,
            "the device comes to rest",
            most,
        )

    def finish(self, task: Task, most: float = PATIENCE) -> None:
        """Until the platform has its outcome, and the device nothing more to say."""
        self.until(lambda: task.at_rest, f"batch {task.batch} at rest, it is {task}", most)
        self.settle(most)

    def do(self, function: Callable, *args) -> None:
        """Calls it in the event loop, where broker and web are used."""
        _loop().call_soon_threadsafe(function, *args)

    def story(self) -> str:
        """For a person: what happened."""
        record = self.record
        lines = [f"boots {[(b.label, b.cause, b.version) for b in record.boots]}"]
        lines += [f"{m.boots} {m.name} {m.msg_id} {m.code or ''} {m.data}" for m in record.heard]
        lines += [f"status {text}" for text in self.backend.statuses]
        return "\n".join(lines + self.device.console[-_LINES:])

    # What happens

    async def _listen(self):
        broker, web = (port.number for port in self._held)
        return await self.broker.start(broker), await self.web.start(web)

    async def _close(self):
        await self.broker.stop()
        await self.web.stop()

    def _say(self, topic: str, payload: bytes) -> None:
        self.do(self.broker.publish, topic, payload)

    def _message(self, topic: str, payload: bytes) -> None:
        name = topic.rpartition("/")[2]
        try:
            heard = Heard(name, *wire.read(payload), len(self.record.boots))
        except wire.Malformed:
            self.record.malformed.append(payload)
        else:
            self.record.heard.append(heard)
        self.backend.receive(name, payload)
        self._event("last_heard")

    def _session(self, up: bool) -> None:
        self._event()

    def _line(self, line: str) -> None:
        word, _, number = line.partition(" ")
        if word == "idle" and number.isdecimal():
            self.record.idles.append(int(number))
            self._event("last_idle")

    def _boot(self, flash: Flash, label: str | None, cause: int) -> None:
        slots = {name: bytes(flash.read(PLACES[name], SLOT)) for name in ("ota_0", "ota_1")}
        version = None
        for name, content in self.approved.items():
            if label and slots[label].startswith(content):
                version = name
        digests = {name: hashlib.sha256(slot).digest() for name, slot in slots.items()}
        self.record.boots.append(Boot(label, cause, version, digests, flash.operations))
        if self.at_boot:
            self.at_boot(flash, label, cause)
        self._event()

    def _event(self, what: str = "") -> None:
        with self.news:
            self.record.events += 1
            if what:
                setattr(self.record, what, self.record.events)
            self.news.notify_all()


def command(msg_id: str, data: dict) -> str:
    """An upgrade command's text."""
    return wire.write(msg_id, data).decode()


_loops: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    if not _loops:
        _loops.append(asyncio.new_event_loop())
        threading.Thread(target=_loops[0].run_forever, name="wire", daemon=True).start()
    return _loops[0]


def call(work):
    """Runs a coroutine in the event loop. Returns what it returns. Raises what it raises."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(_CALL_S)
