"""
After a restart: which version runs, what became of the last upgrade, and the trial of an image that is new.

A new image has to prove itself within a deadline; the watchdog, which boot.py started, catches what hangs. Rolling back is a
restart: the boot loader takes the other image when the one on trial did not confirm.
Source: docs/hardware.md, "Boot loader" and "Starting up".
"""

import sys

import machine
from esp32 import Partition
from micropython import const

from .journal import read
from .slot import failed, head, is_pending, records, slot_of
from .stream import after, left

_NOT_STARTED = const(460)
_SELF_TEST = const(461)
_NOT_CONNECTED = const(462)

# States of the journal's record, see there.
_SWITCHING = const(3)
_DONE = const(4)

_NEW = const(0)
_PENDING_VERIFY = const(1)

_WDT_MS = const(120000)
_NEVER_MS = const(0x7FFFFFFF)


def version(default):
    """The version of the running image: frozen into it, in its descriptor, noted when it was written, or default."""
    path = sys.path[:]
    # A file `firmware.py` would stay the same whatever image runs.
    sys.path[:] = [p for p in path if p.endswith(".frozen")]
    try:
        from firmware import VERSION

        return VERSION
    except ImportError:
        pass
    finally:
        sys.path[:] = path
    image = head(Partition(Partition.RUNNING))
    noted = read("v%d" % slot_of(Partition.RUNNING))
    if image[48]:
        return image[48:80].decode().rstrip("\0")
    return noted[8:].decode() if noted[:8] == image[176:184] else default


def begin(ota, journal):
    """What became of the switch: the journal is DONE then, else left as it is. Returns True when a trial begins."""
    if journal.state == _SWITCHING:
        for _, state, slot, _, _ in records():
            if slot == journal.slot:
                if slot == slot_of(Partition.RUNNING):
                    if state != _PENDING_VERIFY:
                        journal.save(_DONE)
                elif state == _NEW:  # a soft reset: the boot loader did not run yet
                    machine.reset()
                elif failed(state) or state == _PENDING_VERIFY:
                    journal.code = journal.code or _NOT_STARTED
                    journal.save(_DONE)
                break
    if is_pending():
        ota.wdt = machine.WDT(timeout=_WDT_MS)
        ota.due = after(ota.trial_s * 1000)
        return True


def step(ota, connected):
    """
    connected: bool, the platform has the version. Returns None while it lasts, 0 when confirmed, else why not: 461, 462.

    The self-test is asked until it says True (good) or False (bad); None = not yet. What it raises counts as False.
    """
    good = connected
    if connected and ota.self_test:
        try:
            good = ota.self_test()
        except Exception as e:
            sys.print_exception(e)
            return _SELF_TEST
        if good is False:
            return _SELF_TEST
    if good:
        # It marks the record that is active, which is not ours when the boot loader fell back: see is_pending.
        Partition.mark_app_valid_cancel_rollback()
        ota.wdt = machine.WDT(timeout=_NEVER_MS)
        return 0
    if not left(ota.due):
        return _SELF_TEST if connected else _NOT_CONNECTED
