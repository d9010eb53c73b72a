"""
The demo's story: a good upgrade of three devices, one of which loses power and network, then a
broken one. Plays it, and gathers the facts; judges nothing.
"""

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tools.codes import CODES
from tools.device.device import Device
from tools.device.net import Relay
from tools.device.port import otadata
from tools.image.firmware import SIZE, firmware
from tools.platform.local import LocalPlatform
from tools.platform.model import AT_REST

from .user import application, settings
from .verdict import BROKEN, CUT, DEVICES, GOOD, OLD, TRIED, Facts, Seen
from .view import View

PRODUCT = "lamp"

_LOOK = 0.1  # seconds between two looks at the platform
_WAIT = 60  # seconds: the longest wait for one thing, besides a download
_CUT_AT = 40  # percent
_AWAY = 2.5  # seconds without network


def play(folder: Path, seconds: float, view: View) -> Facts:
    """
    folder: an empty one; seconds: how long one download takes. Raises TimeoutError when something
    never happens, and what platform and devices raise.
    """
    files = {
        OLD: firmware(folder / "old.bin", OLD, app=application(True)),
        GOOD: firmware(folder / "good.bin", GOOD, app=application(True)),
        BROKEN: firmware(folder / "broken.bin", BROKEN, app=application(False)),
    }
    with contextlib.ExitStack() as stack:
        platform = LocalPlatform(folder / "platform", throttle=max(1, int(SIZE / seconds)))
        stack.enter_context(platform)
        platform.add_product(PRODUCT)
        # The network of one device: its connections to the broker and to the file server.
        broker = stack.enter_context(Relay("127.0.0.1", platform.mqtt_port))
        server = stack.enter_context(Relay("127.0.0.1", platform.http_port))
        devices = {}
        for name in DEVICES:
            relays = [broker, server] if name == CUT else []
            device = Device(folder / name, relays, on_line=_teller(view, name))
            devices[name] = stack.enter_context(device).create(files[OLD])
            port = broker.port if name == CUT else platform.mqtt_port
            device.put(
                "boot.py", settings(PRODUCT, name, platform.add_device(PRODUCT, name), port)
            )
        return _play(platform, devices, files, f"http://127.0.0.1:{server.port}", seconds, view)


def _play(platform, devices, files, relayed: str, seconds: float, view: View) -> Facts:
    most = seconds + _WAIT
    with view.act(f"Three devices at {OLD}"):
        view.say("platform", "listens for MQTT and HTTP on this machine")
        for device in devices.values():
            device.start()
        platform.wait_seen(DEVICES, _WAIT)
        before = [row["version"] for row in platform.devices(PRODUCT)]

    with view.act(f"{GOOD} for all three"):
        devices[CUT].power_cut()
        view.say(CUT, "power off: it misses the command")
        good = platform.upload(PRODUCT, files[GOOD], GOOD, "good")
        urls = [platform.url_of(good)]
        batch = platform.upgrade(good)
        _follow(platform, batch, view, lambda rows: _of(rows, DEVICES[0]).progress >= 10, most)
        platform.platform.public_url = relayed  # this device alone asks from now on
        devices[CUT].start()
        view.say(CUT, "power on: it asks what is waiting")
        _follow(platform, batch, view, lambda rows: _of(rows, CUT).progress >= _CUT_AT, most)
        devices[CUT].link(False)
        view.say(CUT, f"network cut at {_of(platform.status(batch), CUT).progress} %")
        until = time.monotonic() + _AWAY
        _follow(platform, batch, view, lambda rows: time.monotonic() > until, most)
        devices[CUT].link(True)
        view.say(CUT, "network back")
        upgraded = _follow(platform, batch, view, _at_rest, most)
        platform.platform.public_url = None
        for device in devices.values():
            device.wait(lambda device=device: _confirmed(device), _WAIT)

    with view.act(f"{BROKEN} is broken: its self-test fails"):
        broken = platform.upload(PRODUCT, files[BROKEN], BROKEN, "broken")
        urls.append(platform.url_of(broken))
        batch = platform.upgrade(broken, [TRIED])
        refused = _follow(platform, batch, view, _at_rest, most)
        for row in refused:
            if row.code in CODES:
                view.say("platform", f"{row.code}: {CODES[row.code].cause}")

    versions = {row["identifier"]: row["version"] for row in platform.devices(PRODUCT)}
    content = files[GOOD].read_bytes()
    return Facts(
        before=before,
        good=upgraded,
        broken=refused,
        log=platform.access_log,
        paths=[urlsplit(url).path for url in urls],
        size=len(content),
        devices={
            name: Seen(
                versions[name],
                device.running,
                _confirmed(device),
                _content(device, len(content)) == content,
                [label for label, _ in device.boots],
                device.counters,
            )
            for name, device in devices.items()
        },
    )


def _follow(platform, batch: int, view: View, enough: Callable, timeout: float) -> list:
    """Shows a batch until enough(rows). Returns the rows. Raises TimeoutError."""
    until = time.monotonic() + timeout
    while True:
        rows = platform.status(batch)
        view.show(rows)
        if enough(rows):
            return rows
        if time.monotonic() > until:
            raise TimeoutError(f"batch {batch} is stuck: {rows}")
        time.sleep(_LOOK)


def _of(rows, name: str):
    return next(row for row in rows if row.device == name)


def _at_rest(rows) -> bool:
    return all(row.status in AT_REST for row in rows)


def _content(device: Device, length: int) -> bytes:
    """Of the slot that runs."""
    return device.slot_bytes(device.running, length) if device.running else b""


def _confirmed(device: Device) -> bool:
    """The boot record of the image that runs is VALID."""
    with contextlib.closing(device.open_flash()) as flash:
        entries = otadata.read(flash)
    index = otadata.active(entries)
    return index >= 0 and otadata.state(entries[index]) == otadata.VALID


def _teller(view: View, name: str) -> Callable[[str], None]:
    """Passes on what is worth a line: which slot starts, and which version that is."""

    def tell(line: str) -> None:
        if found := re.search(r"(ota_\d) starts|^ota: (version .*)", line):
            view.say(name, f"starts from {found[1]}" if found[1] else found[2])

    return tell
