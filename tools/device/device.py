"""
A simulated ESP32 on the bench: made, flashed, powered, reset, cut off, looked into.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .layout import OTA_4MIB, make_flash
from .net import Relay
from .port.flash import Flash, read_counters
from .supervisor import Supervisor

_WAIT = 30  # seconds


class Device(Supervisor):
    """
    folder: of its own, made by create(); relays: what carries its traffic, so that link() can cut
    them; options: of Supervisor. start(), power_cut(), stop(), reset(), state, running and boots
    are there too. A context manager, which stops it.
    """

    def __init__(self, folder: Path | str, relays: Sequence[Relay] = (), **options):
        super().__init__(folder, **options)
        self.relays = list(relays)

    def create(self, image: Path | str | bytes, rows=OTA_4MIB) -> "Device":
        """
        A new board, flashed as in a factory: table, image in ota_0, otadata blank, an empty
        filesystem.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.fs, ignore_errors=True)
        self.fs.mkdir()
        for side in ("counters", "rtc", "clock", "wdt", "net", "stuck", "trace", "violations"):
            self._beside(side).unlink(missing_ok=True)
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        make_flash(self.flash_path, {"ota_0": data}, rows)
        return self

    def put(self, name: str, content: Path | str | bytes) -> None:
        """A file onto the device's filesystem. content: a file's path, or the text."""
        path = self.fs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            content = content.read_bytes()
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def open_flash(self) -> Flash:
        """The chip, for a look; to be closed. Writes only while the device is off."""
        return Flash(self._path, self.generation)

    def load(self, label: str, image: Path | str | bytes) -> None:
        """An image into a partition, from outside, while it is off. Raises KeyError: no such."""
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        with contextlib.closing(self.open_flash()) as flash:
            flash.poke(_offset(flash, label), data)

    def slot_bytes(self, label: str, length: int) -> bytes:
        """The first bytes of a partition. Raises KeyError: no such label."""
        with contextlib.closing(self.open_flash()) as flash:
            return bytes(flash.read(_offset(flash, label), length))

    @property
    def counters(self) -> dict[str, int]:
        """operations, erases, violations, aborts of the flash, since create()."""
        return read_counters(self._path)

    def link(self, up: bool = True, ssid: str | None = None, key: str | None = None) -> None:
        """
        The Wi-Fi: what network.WLAN says, and the relays. ssid: what the access point wants,
        None = anything.
        """
        content = json.dumps({"up": up, "ssid": ssid, "key": key or ""})
        self._beside("net").write_text(content, encoding="ascii")
        for relay in self.relays:
            relay.up() if up else relay.down()

    def wait(self, what: str | Callable[[], object], timeout: float = _WAIT):
        """For a line of the console, or a condition; see Console.wait. Raises TimeoutError."""
        return self._console.wait(what, timeout)

    @property
    def console(self) -> list[str]:
        """The last lines that came."""
        return self._console.lines


def _offset(flash: Flash, label: str) -> int:
    return {row[0]: row[3] for row in flash.table}[label]
