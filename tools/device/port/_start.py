"""
What a board does between the boot loader and the REPL: boot.py, then main.py, in the name space
of __main__.

The frozen one wins over the file. When boot.py raises, main.py does not run. In the end, after
an error too, the board waits for somebody at its REPL, for ever; SystemExit is a soft reset.
Source: ports/esp32/main.c (mp_task), shared/runtime/pyexec.c.
"""

import os
import sys

import __main__


def _exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def _run(name):
    """False when it raised."""
    try:
        # The supervisor lays a frozen one down under this name too, which no file hides.
        if any(
            p.endswith("/.frozen") and _exists(p + "/_frozen_" + name + ".mpy") for p in sys.path
        ):
            __import__("_frozen_" + name)
        elif _exists(name + ".py"):
            execfile(name + ".py", __main__.__dict__)  # noqa: F821 (the unix port's)
        return True
    except SystemExit:
        _soft_reset()
    except BaseException as error:
        sys.print_exception(error)
        return False


def _soft_reset():
    from flash import die, read_rtc, write_rtc

    print("MPY: soft reboot")
    flash = os.getenv("OTA_SIM_FLASH")
    rtc = read_rtc(flash)
    rtc["cause"] = 5  # machine.SOFT_RESET
    rtc["wake"] = 0
    write_rtc(flash, rtc)
    die()


def _repl():
    if os.getenv("OTA_SIM_SERIAL"):
        return  # to the interpreter's own
    import utime

    print(">>>")
    while True:
        utime.sleep(3600)


# A soft reset out of the raw REPL does without main.py.
if _run("boot") and not os.getenv("OTA_SIM_RAW"):
    _run("main")
_repl()
