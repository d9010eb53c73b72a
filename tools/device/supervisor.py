"""
Power supply, boot loader and watchdog of a simulated ESP32: what starts its interpreter.

The unix port of MicroPython runs what the booted slot has frozen in it, over the modules of
port/. Its death is a reset; what it left in the RTC memory says which. Takes two threads and a
process for each device.
"""

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tools import toolchain

from .console import Console
from .port import bootloader, flashfault
from .port.flash import Flash, PowerCut, read_rtc, write_rtc
from .process import Attached, Process
from .rom import compiled_os, compiled_port, extract
from .serial import Serial

# As machine.py has them.
PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = range(1, 6)

OFF, ON, ASLEEP, NO_BOOT = "off", "on", "asleep", "no boot"

_TICK = 0.05  # seconds between two looks at process and watchdog
_STARTS = 1000  # remembered
_STOP = 20  # seconds until the thread has to be gone

# With a serial port, the device sees its own filesystem alone, as a board does: somebody may type
# any path. The host's files, which the hardware's modules need, are below _HOST.
_HOST = "/.host"
_OWN_ROOT = (
    "import os,vfs;h=vfs.VfsPosix('/');f=os.getcwd();vfs.umount('/');"
    f"vfs.mount(vfs.VfsPosix(f),'/');vfs.mount(h,{_HOST!r});os.chdir('/');del h,f,os,vfs;"
)

_alive: "weakref.WeakSet[Supervisor]" = weakref.WeakSet()


class Supervisor:
    """
    folder: with the flash file and the filesystem; identifier: default the folder's name;
    generation: of the boot loader, "5.5" or "6.1"; heapsize: of the interpreter; micropython:
    its path (default: toolchain.micropython(), with its FileNotFoundError); port: folder with
    the hardware's modules (default: port/, compiled); fault: as OTA_SIM_FAULT, see
    port/flashfault.py; env: more environment for the device's process; starts_per_minute: the
    bound that keeps a boot loop from eating the machine; on_line: called for each line of the
    console; on_boot: called with (Flash, label or None, reset cause) after each choice of the
    boot loader, before anything runs; it must not raise; serial: True = it has a serial port with
    a REPL, see serial.py, and a real board's paths; drop: of that port. Raises ValueError for a
    malformed fault.

    Attributes: state ("off", "on", "asleep", "no boot"); running (label of the slot, None = no
    process); boots (list of (label or None, reset cause)).
    """

    def __init__(
        self,
        folder: Path | str,
        identifier: str | None = None,
        generation: str = "5.5",
        heapsize: str = "160k",
        micropython: Path | str | None = None,
        port: Path | str | None = None,
        fault: str | None = None,
        env: dict[str, str] | None = None,
        starts_per_minute: int = 60,
        on_line: Callable[[str], None] | None = None,
        on_boot: Callable[[Flash, str | None, int], None] | None = None,
        serial: bool = False,
        drop: int | None = None,
    ):
        self.folder = Path(folder).absolute()
        self.identifier = identifier or self.folder.name
        self.generation = generation
        self.heapsize = heapsize
        self.micropython = str(micropython or toolchain.micropython())
        self.port = Path(port).absolute() if port else None
        self.fault = fault or os.environ.get("OTA_SIM_FAULT")
        if self.fault:
            flashfault.parse(self.fault)  # here, and not in a thread
        self.env = env or {}
        self.starts_per_minute = starts_per_minute
        self._on_boot = on_boot
        self.flash_path = self.folder / "flash.bin"
        self._path = str(self.flash_path)
        self.fs = self.folder / "fs"
        self.state = OFF
        self.running: str | None = None
        self.boots: deque[tuple[str | None, int]] = deque(maxlen=_STARTS)
        self._console = Console(self.identifier, on_line)
        self.serial = Serial(self._console.add, drop) if serial else None
        self._lock = threading.RLock()  # held while the process is started or ended
        self._touched = threading.Event()
        self._process: Process | None = None
        self._thread: threading.Thread | None = None
        self._power = False

    def start(self) -> "Supervisor":
        """Power on; nothing when it is on."""
        with self._lock:
            if not self._power:
                self._power = True
                self._forget()
                self._touched.clear()
                self._thread = threading.Thread(
                    target=self._run, name=self.identifier, daemon=True
                )
                _alive.add(self)
                self._thread.start()
        return self

    def power_cut(self) -> None:
        """The power goes away, at any point. start() brings it back."""
        with self._lock:
            self._power = False
            self._kill()
            self._forget()
            self._touched.set()
        if self._thread:
            self._thread.join(_STOP)
        self.state = OFF

    stop = power_cut

    def reset(self) -> None:
        """A hard reset, from outside. The power stays on."""
        with self._lock:
            self._kill()
            write_rtc(self._path, {"cause": HARD_RESET})
            self._touched.set()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        if self.serial:
            self.serial.close()

    def _beside(self, what: str) -> Path:
        return self.folder / f"{self.flash_path.name}.{what}"

    def _forget(self) -> None:
        """Without power: no RTC memory, no clock, no watchdog."""
        write_rtc(self._path, None)
        for side in ("clock", "wdt"):
            self._beside(side).unlink(missing_ok=True)

    def _kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process = None
        self.running = None

    def _run(self) -> None:
        starts: deque[float] = deque(maxlen=self.starts_per_minute)
        while self._power:
            if len(starts) == starts.maxlen and (rest := starts[0] + 60 - time.monotonic()) > 0:
                self._console.add(
                    f"[simulator] {len(starts)} starts in a minute, {rest:.0f} s rest"
                )
                self._touched.wait(rest)
            starts.append(time.monotonic())
            try:
                process = self._boot()
            except PowerCut:  # a fault's; the power comes back at once
                self._forget()
                continue
            if process:
                self._watch(process)
            elif self._power:
                self._touched.wait()

    def _boot(self) -> Process | None:
        """From power or reset to the running interpreter. None: nothing runs. Raises PowerCut."""
        rtc = read_rtc(self._path)
        if rtc.get("wake", 0) != 0:
            self.state = ASLEEP
            self._touched.wait(rtc["wake"] and rtc["wake"] / 1000)
        with self._lock:
            if not self._power:
                return None
            self._touched.clear()
            flash = Flash(self._path, self.generation, faults=self.fault)
            try:
                label, cause = self._choose(flash)
                self.boots.append((label, cause))
                if self._on_boot:
                    self._on_boot(flash, label, cause)
                if label is None:
                    self.state = NO_BOOT
                    self._console.add("[simulator] no bootable image")
                    return None
                write_rtc(self._path, {"running": label, "cause": cause})
                self._console.add(f"[simulator] {label} starts, cause {cause}")
                self.state, self.running = ON, label  # before it can say a word
                self._process = self._launch(flash, label)
                return self._process
            finally:
                flash.close()

    def _choose(self, flash: Flash) -> tuple[str | None, int]:
        """The slot that runs, and the reset's cause. Raises PowerCut."""
        rtc = read_rtc(self._path)
        if not rtc:  # the power was away, also when the process says so by itself
            self._forget()
        if self.serial and rtc.get("cause") != SOFT_RESET:
            self.serial.reset()
        if "wake" in rtc:  # a soft reset, or the end of deep sleep: no boot loader
            if rtc["cause"] == DEEPSLEEP_RESET:  # it stops the watchdog, a soft reset does not
                self._beside("wdt").unlink(missing_ok=True)
            return rtc["running"], rtc["cause"]
        # Who dies without a word has crashed; MicroPython tells that as a hard reset.
        cause = HARD_RESET if "running" in rtc else rtc.get("cause", PWRON_RESET)
        self._beside("wdt").unlink(missing_ok=True)
        return bootloader.boot(flash), cause

    def _launch(self, flash: Flash, label: str) -> Process:
        try:
            frozen = extract(flash, label, self.folder / "frozen")
        except ValueError as error:
            self._console.add(f"[simulator] {error}")
            frozen = self.folder / "frozen" / "none" / ".frozen"
        path = [frozen, ".frozen", self.fs / "lib", self.port or compiled_port()]
        flash_path = self._path
        if self.serial:
            path = [f"{_HOST}{frozen}", ".frozen", "/lib"]
            path += [f"{_HOST}{folder}" for folder in (compiled_os(), compiled_port())]
            flash_path = _HOST + flash_path
        env = {
            "PATH": os.environ.get("PATH", os.defpath),  # of the shell that ends the process
            "MICROPYPATH": ":".join(map(str, path)),
            "OTA_SIM_FLASH": flash_path,
            "OTA_SIM_IDF": self.generation,
            "OTA_SIM_SUPERVISED": "1",
        }
        if self.fault:
            env["OTA_SIM_FAULT"] = self.fault
        command = [self.micropython, "-X", f"heapsize={self.heapsize}"]
        wdt = self._beside("wdt")
        if self.serial:
            env["OTA_SIM_SERIAL"] = "1"
            command += ["-i", "-c", _OWN_ROOT + "import _start"]
            return self.serial.start(command, self.fs, env | self.env, wdt)
        command += ["-c", "import _start"]
        return Process(command, self.fs, env | self.env, self._console.add, wdt)

    def _watch(self, process: Process) -> None:
        """Until it is gone."""
        while not process.ended(_TICK):
            if process.late:
                with self._lock:
                    if self._process is process:
                        self._kill()
                        write_rtc(self._path, {"cause": WDT_RESET})
        with self._lock:
            if self._process is process:
                if isinstance(process, Attached) and process.left:
                    self._soft_reset()
                self._kill()

    def _soft_reset(self) -> None:
        """Ctrl-D at the REPL: the interpreter anew, without the boot loader."""
        self.serial.say("MPY: soft reboot\r\n")
        write_rtc(self._path, read_rtc(self._path) | {"cause": SOFT_RESET, "wake": 0})


@atexit.register
def _power_off() -> None:
    """No interpreter outlives this process."""
    for device in list(_alive):
        device.power_cut()
