"""
Late failure: an image that was confirmed, and then crashes. Loaded while one may be given up.

A confirmed image has three crashes in its first starts, each within ota.late_s of its start. After
them the agent goes back to the other slot, while that is whole, once, and tells it (464). A start
that lasts longer, or the next upgrade, ends all that. Source: docs/protocol.md; docs/hardware.md.
"""

import sys

import machine

from .slot import records, running
from .stream import after, left

_LATE = const(464)

_DONE = const(4)  # state of the journal's record, see there
_READY = const(1)  # phase of the agent: nothing is at work

_LIVES = const(4)
_NEVER_MS = const(0x7FFFFFFF)


def arm(ota, journal, slot):
    """The image in slot (int) is confirmed. The caller writes the journal."""
    ota._also = None
    if ota.late_s:
        journal.late = slot << 3 | _LIVES
        _watch(ota)
    else:
        _drop()


def begin(ota, journal, here):
    """
    At a start. journal.late: slot << 3 | what is left: 4 when its image was confirmed, one less
    for each crash; at 1 we go back. here: int, the slot that runs.
    """
    lives = journal.late & 7
    if journal.late >> 3 == here and ota.late_s:
        # A crash is a reset of software's own or of the watchdog: not power, not deep sleep.
        if lives > 1 and machine.reset_cause() in (2, 3):
            lives -= 1
            journal.late -= 1
            journal.save(journal.state)
        for state, slot, _, _ in records():
            if lives == 1 and slot != here and state != 2:  # it had its chance
                lives = 0
        if lives == 1:
            try:
                running().get_next_update().set_boot()
                machine.reset()
            except OSError:  # nothing whole is there
                pass
        if lives > 1:
            _watch(ota)
            return
    elif lives == 1:
        # We are back. This image proved itself long ago, and the network may be away: no trial.
        try:
            running().mark_app_valid_cancel_rollback()
        except OSError:  # then it has one
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
    journal.save(journal.state)
    _drop()


def _drop():
    # Code costs heap. The package knows it, too.
    del sys.modules["ota.late"]
    del sys.modules["ota"].late
