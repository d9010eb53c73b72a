"""
The ESP32's `time`: ticks that wrap at 2**30, an epoch of 2000, no clock before someone sets it.

The unix port's own module wraps far later, so that a wrong `ticks_diff` would never show.
OTA_SIM_TICKS in the environment = value of `ticks_ms()` at the start (default 0, as on a board).
What the clock shows survives a reset, not a power cut: it lies in `<flash>.clock`. Under
`simulator.clock()` time stands still but for sleeping. Source: ports/esp32/modtime.c,
extmod/modtime.c, py/mpconfig.h.
"""

import os
import sys

import utime as _host  # with the u, the builtin one is found
from micropython import const

_MASK = const(0x3FFFFFFF)  # ticks wrap at 2**30
_HALF = const(0x20000000)
_DAYS_TO_2000 = const(730425)  # from 1 March of the year 0
_EPOCH = const(946684800)  # 2000 in the host's count
_US = const(1000000)

_frozen = None  # us, what the clock shows while it stands still; None = it runs
_step = 0  # us that each look at a frozen clock takes


def _monotonic():
    """us, from any point in time."""
    global _frozen
    if _frozen is None:
        return _host.ticks_us()
    _frozen += _step
    return _frozen


def _freeze(step_us):
    """
    For simulator.py: the clock stands still but for sleeping, and step_us at each look. None =
    it runs again.
    """
    global _frozen, _step, _start, _zero
    if step_us is not None:
        _frozen, _step = _monotonic(), step_us
    elif _frozen is not None:
        ahead = _frozen - _host.ticks_us()
        _frozen = None
        _start -= ahead
        _zero -= ahead


def _clock_file():
    flash = os.getenv("OTA_SIM_FLASH")
    return flash and flash + ".clock"


def _read_zero():
    """
    When, in us of the host's clock, it was 2000-01-01 00:00 for this device: at power on, unless
    it was set since.
    """
    try:
        with open(_clock_file()) as f:
            zero = int(f.read())
        if zero <= _host.ticks_us():  # else the host was restarted since
            return zero
    except (OSError, ValueError, TypeError):
        pass
    zero = _host.ticks_us()
    _write_zero(zero)
    return zero


def _write_zero(zero):
    file = _clock_file()
    if file:
        with open(file, "w") as f:
            f.write(str(zero))


def _set(seconds):
    """ntptime's and machine.RTC's: seconds since 2000."""
    global _zero
    _zero = _monotonic() - seconds * _US
    _write_zero(_zero)


class _Asyncio:
    """
    The builtin half of asyncio takes its time from the host; so must the other half, whose import
    asks for these two names when it has ours already.
    """

    def __init__(self, builtin):
        self._builtin = builtin

    def __getattr__(self, name):
        core = sys.modules["asyncio.core"]
        core.ticks, core.ticks_add, core.ticks_diff = (
            _host.ticks_ms,
            _host.ticks_add,
            _host.ticks_diff,
        )
        return getattr(self._builtin, name)


try:
    import _asyncio

    sys.modules["_asyncio"] = _Asyncio(_asyncio)
except ImportError:
    pass

_start = _host.ticks_us() - int(os.getenv("OTA_SIM_TICKS") or 0) * 1000
_zero = _read_zero()


def ticks_ms():
    return (_monotonic() - _start) // 1000 & _MASK


def ticks_us():
    return _monotonic() - _start & _MASK


ticks_cpu = ticks_us


def ticks_add(ticks, delta):
    if not -_HALF < delta < _HALF:
        raise OverflowError("ticks interval overflow")
    return ticks + delta & _MASK


def ticks_diff(later, earlier):
    return (later - earlier + _HALF & _MASK) - _HALF


def sleep_us(us):
    global _frozen
    if _frozen is None:
        _host.sleep_us(us)
    else:
        _frozen += max(us, 0)


def sleep_ms(ms):
    sleep_us(ms * 1000)


def sleep(seconds):
    sleep_us(int(seconds * _US))


def time():
    return (_monotonic() - _zero) // _US


def time_ns():
    return (_monotonic() - _zero) * 1000


def gmtime(seconds=None):
    """Eight values, as on a board."""
    return _host.gmtime(int(time() if seconds is None else seconds) + _EPOCH)[:8]


localtime = gmtime  # a board knows no time zone


def mktime(date):
    """The host's own would reckon in the host's time zone."""
    year, month = divmod(
        date[0] * 12 + date[1] - 1 - 2, 12
    )  # years that begin in March: the leap day comes last
    days = (
        365 * year
        + year // 4
        - year // 100
        + year // 400
        + (153 * month + 2) // 5
        + date[2]
        - 1
        - _DAYS_TO_2000
    )
    return days * 86400 + date[3] * 3600 + date[4] * 60 + date[5]
