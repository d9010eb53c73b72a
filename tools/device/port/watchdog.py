"""
The watchdog of a device that runs without a supervisor: a process beside it, which ends with it.

Must work while the device's interpreter hangs, so it is a second interpreter.
"""

import os
import sys

import utime as _host
from flash import write_rtc

_LOOK_MS = 20
_LOOKS = 25  # so often, then see whether the device is still there
_WDT_RESET = 3


def start():
    """Starts the process that watches this one."""
    program = getattr(sys, "executable", "") or os.getenv("MICROPYTHON") or "micropython"
    code = "import watchdog; watchdog.watch($PPID)"
    os.system('"%s" -X heapsize=64k -c "%s" </dev/null >/dev/null 2>&1 &' % (program, code))


def watch(pid):
    """pid: of the device. Returns when that is gone, or bitten."""
    flash = os.getenv("OTA_SIM_FLASH")
    look = 0
    while True:
        with open(flash + ".wdt", "rb") as file:
            late = _host.ticks_ms() > int.from_bytes(file.read(8), "little")
        if late or look % _LOOKS == 0:
            if os.system("kill -0 %d 2>/dev/null" % pid):
                return
            if late:
                write_rtc(flash, {"cause": _WDT_RESET})
                os.system("kill -9 %d" % pid)
                return
        look += 1
        _host.sleep_ms(_LOOK_MS)
