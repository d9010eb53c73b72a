"""
After a restart: which version runs, what became of the last upgrade, and the trial of an image that is new.

A new image has to prove itself within a deadline; the watchdog, which boot.py started, catches what hangs. Rolling back is a
restart: the boot loader takes the other image when the one on trial did not confirm.
Source: docs/hardware.md, "Boot loader" and "Starting up".
"""

import sys
from binascii import hexlify

import machine

from .slot import head, records, running
from .stream import after, left

_NOT_STARTED = const(460)
_SELF_TEST = const(461)
_NOT_CONNECTED = const(462)

# States of the journal's record, see there.
_SWITCHING = const(3)
_DONE = const(4)

# States of a boot record; the others are INVALID 3, ABORTED 4.
_NEW = const(0)
_PENDING_VERIFY = const(1)
_VALID = const(2)

_WDT_MS = const(120000)
_NEVER_MS = const(0x7FFFFFFF)


def running_version(journal, default):
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
    image = head(running())
    if image[48]:
        return image[48:80].decode().rstrip("\0")
    # Noted for exactly this build: by the first bytes of the ELF's SHA-256.
    noted = getattr(journal, "v%d" % running().info()[1], "")
    return noted[16:] if noted[:16] == hexlify(image[176:184]).decode() else default


def begin(ota, journal):
    """What became of the switch: the journal is DONE then, else left as it is. Returns True when a trial begins."""
    here = running().info()[1]
    switching = journal.state == _SWITCHING
    for state, slot, _, _ in records():
        if slot == here:
            if state == _PENDING_VERIFY:
                ota.wdt = machine.WDT(timeout=_WDT_MS)
                ota.due = after(ota.trial_s * 1000)
                return True
        # Earlier failures are not among the records any more, see Slot.
        elif switching and slot == journal.slot:
            if state == _NEW:  # a soft reset: the boot loader did not run yet
                machine.reset()
            if state != _VALID:
                journal.code = journal.code or _NOT_STARTED
                journal.save(_DONE)
    if switching and journal.slot == here:
        journal.save(_DONE)


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
        running().mark_app_valid_cancel_rollback()
        ota.wdt = machine.WDT(timeout=_NEVER_MS)
        return 0
    if not left(ota.due):
        return _SELF_TEST if connected else _NOT_CONNECTED
