"""
Late failure: an image that was confirmed, and then crashes. Loaded while one may be given up.

A confirmed image has three crashes in its first starts, each within ota.late_s of its start. After
them the agent goes back to the other slot, while that is whole, once, and tells it (464). A start
that lasts longer, or the next upgrade, ends all that. Source: docs/protocol.md; docs/hardware.md.
"""

import machine

import ota as package

from . import drop
from .stream import after, left

_LATE = const(464)

_DONE = const(4)  # state of the journal's record, see there
_READY = const(1)  # phase of the agent: nothing is at work

_VALID = const(2)  # state of a boot record
_LIVES = const(4)
_NEVER_MS = const(0x7FFFFFFF)


def arm(ota, journal, slot):
    """The image in slot (int) is confirmed. The caller writes the journal."""
    journal.late = slot << 3 | _LIVES
    _watch(ota)


def begin(ota, journal, here):
    """
    At a start. journal.late: slot << 3 | what is left: 4 when its image was confirmed, one less
    for each crash; at 1 we go back. here: int, the slot that runs. journal.back: str, 16 hex
    digits of the build that we go back to.
    """
    # Here: what arm() loads must not bring another copy of it.
    from .slot import booting, build, confirm, records, running

    lives = journal.late & 7
    # A crash is a reset of software's own or of the watchdog: not power, not deep sleep.
    crash = machine.reset_cause() in (2, 3)
    if journal.late >> 3 == here:
        if not ota.late_s:
            lives = 0
        other = running().get_next_update()
        if lives > 1 and crash and not hasattr(package, "counted"):
            package.counted = True  # by this start; init may be called again
            lives -= 1
            journal.late -= 1
            if lives == 1:
                journal.back = build(other)
            journal.write(journal.state)
        for state, slot, _, _ in records():
            if lives == 1 and slot != here and state != _VALID and crash:  # it had its chance
                lives = 0
        if lives == 1:
            try:
                other.set_boot()
                if booting() != here:
                    machine.reset()
            except OSError:  # nothing whole is there
                pass
        if lives > 1:
            _watch(ota)
            return
    elif lives == 1 and build(running()) == getattr(journal, "back", ""):
        # We are back. This image proved itself long ago, and the network may be away: no trial.
        for _ in (1, 2):  # flash may fail once
            try:
                if confirm(running()):
                    break
            except OSError:
                pass
        ota.wdt = machine.WDT(timeout=_NEVER_MS)  # boot.py started it
        journal.code = _LATE
        journal.state = _DONE
    _forget(journal)


def _watch(ota):
    ota.calm = after(ota.late_s * 1000)
    ota._also = _calm


def _calm(ota, journal):
    # Over when the start was long enough, or the next command came: the record is going to be its,
    # and the other slot.
    if ota._phase > _READY or not left(ota.calm):
        ota._also = None
        _forget(journal)


def _forget(journal):
    journal.late = 0
    journal.write(journal.state)
    drop("late")
