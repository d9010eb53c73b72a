"""
The ESP32's `machine`, as far as an upgrade needs it: resets and their causes, the watchdog, the
clock's setting.

A reset writes its cause to the RTC memory and ends the process at once. The supervisor
(tools/device/supervisor.py) runs the boot loader and starts the next one; without it the next
process that imports `esp32` does so. Source: ports/esp32/modmachine.c, machine_wdt.c,
machine_rtc.c.
"""

import os
import time

import utime as _host  # the watchdog counts real time, also while a test holds the clock
from flash import die, read_rtc, write_rtc
from micropython import const

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_TIMEOUT_MAX = const(0x7FFFFFFF)


def _flash():
    path = os.getenv("OTA_SIM_FLASH")
    if not path:
        raise RuntimeError("OTA_SIM_FLASH names no flash file")
    return path


def reset():
    """Never returns."""
    write_rtc(_flash(), {"cause": HARD_RESET})
    die()


def soft_reset():
    """The interpreter starts anew, the boot loader does not run, the watchdog goes on."""
    raise SystemExit


def deepsleep(time_ms=None):
    """
    Never returns. Waking skips the boot loader's choice. Without time_ms it sleeps until the
    power is cut.
    """
    rtc = read_rtc(_flash())
    rtc["cause"] = DEEPSLEEP_RESET
    rtc["wake"] = time_ms
    write_rtc(_flash(), rtc)
    die()


def reset_cause():
    return read_rtc(_flash()).get("cause", PWRON_RESET)


def unique_id():
    """Six bytes, as an ESP32's: of the flash file's name, so that each device has its own."""
    import hashlib

    return b"\x02" + hashlib.sha256(_flash().encode()).digest()[:5]


class WDT:
    """
    Restarts the device when feed() is not called in time, also while the interpreter hangs.
    Cannot be stopped; another WDT(...) sets another time-out. timeout: ms, 1 to 2**31 - 1; else
    ValueError.
    """

    _file = None

    def __init__(self, id=0, timeout=5000):
        if id:
            raise ValueError("WDT id")
        if not 0 < timeout <= _TIMEOUT_MAX:
            raise ValueError("WDT timeout")
        self._timeout = timeout
        first = WDT._file is None
        if first:
            # The deadline, host's ms: whoever watches this file kills the process then.
            path = _flash() + ".wdt"
            open(path, "ab").close()
            WDT._file = open(path, "r+b")  # noqa: SIM115 (open as long as the device runs)
        self.feed()
        if first and not os.getenv("OTA_SIM_SUPERVISED"):
            import watchdog

            watchdog.start()

    def feed(self):
        WDT._file.seek(0)
        WDT._file.write((_host.ticks_ms() + self._timeout).to_bytes(8, "little"))


class RTC:
    """The clock: `datetime()` alone, which is what ntptime uses."""

    def datetime(self, new=None):
        """(year, month, day, weekday, hours, minutes, seconds, microseconds); new: sets it."""
        if new is None:
            now = time.gmtime()
            return now[:3] + now[6:7] + now[3:6] + (0,)
        time._set(time.mktime(new[:3] + new[4:7] + (0, 0)))
