"""
A bench for whole upgrades: platform, simulated devices, and the wire between them.

All parts are the real ones. The fixtures that make them are in tests/bench_fixtures.py.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path

from ota.protocol import _PREFIX as PREFIX
from tools.device.device import Device
from tools.device.net import Relay
from tools.platform.local import LocalPlatform
from tools.toolchain import text_of

PRODUCT = "pk1"
LAMP = "lamp"
SIZE = 256 * 1024  # bytes of an image: four notes in the journal, and quick
BLOCK, UNIT = 4096, 65536  # bytes: what is written at a time; what is noted in the journal
PATIENCE = 60  # seconds: no figure, only an end for what never comes
WDT_RESET = 3  # machine.WDT_RESET
_WDT_MS = 120_000  # as boot.py says
_LOOK = 0.03  # seconds between two looks


def app(settings: str = "", *changes: tuple[str, str], before: str = "") -> str:
    """
    The project's main.py: with settings for ota.init ("tries=1, stall_s=2"), code before it, and
    a restart after 0.2 s, not 10, when it raised.
    """
    fixed = (
        ("trust=trust)\n    print", f"trust=trust, {settings})\n    print"),
        ("time.sleep(10)", "time.sleep_ms(200)"),
    )
    return before + text_of("main.py", *fixed, *changes)


class Bench:
    """
    A platform, and the devices of one test.

    folder: of the test; images: makes an image, see tests/bench_fixtures.py; tls: what the broker
    and the file server say of themselves, None = no TLS; options: of the platform.
    Attributes: platform, devices, wire (Relay to the broker), web (Relay to the file server); all
    that the devices say passes these two.
    """

    def __init__(self, folder: Path, images: Callable[..., Path], tls=None, **options):
        self.folder, self.images, self._tls = folder, images, tls
        self.devices: list[Device] = []
        self._options = options
        self._stack = contextlib.ExitStack()
        self.platform = self._platform()
        self.platform.add_product(PRODUCT)
        self.wire = self._stack.enter_context(Relay("127.0.0.1", self.platform.mqtt_port, tls=tls))
        self.web = self._stack.enter_context(
            Relay("127.0.0.1", self.platform.http_port, buffer=8192, tls=tls)
        )
        self._reach()

    def _platform(self, **ports: int) -> LocalPlatform:
        platform = LocalPlatform(self.folder / "platform", **self._options, **ports)
        platform.start()
        return platform

    def _reach(self) -> None:
        base = "https://localhost" if self._tls else "http://127.0.0.1"
        self.platform.platform.public_url = f"{base}:{self.web.port}"

    def restart_platform(self) -> None:
        """Broker, file server and all, on the same ports."""
        ports = {"mqtt_port": self.platform.mqtt_port, "http_port": self.platform.http_port}
        self.platform.stop()
        self.platform = self._platform(**ports)
        self._reach()

    def release(self) -> None:
        """No brake on downloads any more."""
        self.platform.platform.files.throttle = None

    def device(
        self,
        image: Path,
        name: str = LAMP,
        seen: bool = True,
        boot: dict | None = None,
        on: bool = True,
        **options,
    ) -> Device:
        """
        A new board with that image, its settings in boot.py; on: powered on; seen: wait until it
        has told its version and asked what it missed; boot: more settings. options: of Device.
        """
        device = Device(self.folder / name, [self.wire, self.web], **options).create(image)
        self.devices.append(device)
        settings = {
            "WIFI_SSID": "home",
            "MQTT_SERVER": "127.0.0.1",
            "PRODUCT_KEY": PRODUCT,
            "IDENTIFIER": name,
            "DEVICE_SECRET": self.platform.add_device(PRODUCT, name),
        }
        changes = [(f'{key} = ""', f'{key} = "{value}"') for key, value in settings.items()]
        changes.append(("MQTT_PORT = 1883", f"MQTT_PORT = {self.wire.port}"))
        more = "".join(f"{key} = {value!r}\n" for key, value in (boot or {}).items())
        changes.append(("\n\n# The network.", f"\n{more}\n# The network."))
        device.put("boot.py", text_of("boot.py", *changes))
        if on:
            device.start()
        if on and seen:
            self.hear("get", "", name=name)
        return device

    def offer(self, image: Path, version: str, devices: tuple[str, ...] = (LAMP,), **settings):
        """Uploads an image and starts a batch. settings: of the batch. Returns its number."""
        uploaded = self.platform.upload(PRODUCT, image, version)
        return self.platform.upgrade(uploaded, list(devices), **settings)

    def result(self, batch: int) -> list[tuple]:
        """When the batch is at rest: (status, remark, code, version) of each device."""
        rows = self.platform.wait(batch, PATIENCE)
        return [(row.status, row.remark, row.code, row.version) for row in rows]

    def command(self, msg_id: str, image: Path, version: str, url: str = "", **other) -> str:
        """An upgrade command for an image, as JSON. other: fields of `data` put in its place."""
        data = {
            "policy": "standard",
            "size": image.stat().st_size,
            "firmwareVersion": version,
            "url": url,
            "sign": md5(image.read_bytes()).hexdigest(),
            "signMethod": "Md5",
        }
        return json.dumps({"msgId": msg_id, "version": "1.0", "data": data | other})

    def say(self, payload: str | bytes, name: str = LAMP, retain: bool = False) -> None:
        """A message to the device's upgrade topic, past the platform's logic."""
        self.platform.publish(PREFIX % (PRODUCT, name) + "upgrade", payload, retain)

    def heard(self, kind: str, name: str = LAMP) -> list[str]:
        """What the device said: texts of its log of that kind, see Engine.events."""
        return [event["text"] for event in self.platform.events(name) if event["kind"] == kind]

    def hear(self, kind: str, text: str, after: int = 0, name: str = LAMP) -> list[str]:
        """
        Waits for a line of the log that matches text wholly, behind the first `after` of its
        kind. Returns those that do. Raises TimeoutError.
        """
        return until(
            lambda: [t for t in self.heard(kind, name)[after:] if re.fullmatch(text, t)],
            lambda: f"{kind} {text!r}: {self.platform.events(name)}\n{self._consoles()}",
        )

    def _consoles(self) -> str:
        return "\n".join(line for device in self.devices for line in device.console[-30:])

    def close(self) -> None:
        for device in self.devices:
            device.stop()
        self._stack.close()
        self.platform.stop()
        for device in self.devices:
            counters = device.counters
            assert (counters["violations"], counters["aborts"]) == (0, 0)
            assert counters["operations"] > 0 or not device.boots


def until(condition: Callable[[], object], what: Callable[[], str] | str = "", most=PATIENCE):
    """Waits for a condition. Returns what it gave. Raises TimeoutError, telling what()."""
    end = time.monotonic() + most
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(what() if callable(what) else what)
        time.sleep(_LOOK)
    return found


def in_flash(device: Device, label: str, image: Path) -> int:
    """Bytes of an image that are in a slot, in whole blocks from its beginning on."""
    wanted = image.read_bytes()
    found = device.slot_bytes(label, len(wanted))
    for at in range(0, len(wanted), BLOCK):
        if found[at : at + BLOCK] != wanted[at : at + BLOCK]:
            return at
    return len(wanted)


def settled(look: Callable[[], object]):
    """What look() gives when it has been the same for a while."""
    seen, since = look(), time.monotonic()
    end = since + PATIENCE
    while time.monotonic() < since + 0.4:
        assert time.monotonic() < end, "it never comes to rest"
        time.sleep(_LOOK)
        if (now := look()) != seen:
            seen, since = now, time.monotonic()
    return seen


def let_watchdog_bite(device: Device) -> None:
    """
    Two minutes pass for a device that hangs: its watchdog runs, nobody feeds it, so its time is
    up now.
    """
    file = device.folder / "flash.bin.wdt"
    until(lambda: file.exists() and file.stat().st_size >= 8, lambda: "no watchdog runs")
    deadline = settled(file.read_bytes)
    left = int.from_bytes(deadline, "little") - time.monotonic() * 1000
    assert 0 < left <= _WDT_MS
    starts = len(device.boots)
    with file.open("r+b") as stream:
        stream.write((1).to_bytes(8, "little"))
    until(lambda: len(device.boots) > starts)
    assert device.boots[starts][1] == WDT_RESET
