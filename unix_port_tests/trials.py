"""
What the tests of ota/slot.py and ota/late.py share: a device that may restart, its journal, its
boot records.

A restart of the device is an exception here.
"""

import os
import sys
import unittest

import bootrecords as boot
import images
import machine
from esp32 import NVS
from journals import read_journal

from ota.agent import Journal

# States of the journal's record.
FETCHING = 2
SWITCHING = 3
DONE = 4
TOLD = 5

FROZEN = "trial.frozen"  # a folder that stands for the frozen modules


class Restart(Exception):
    """machine.reset() was called: on a device it never returns."""


class Machine:
    """The module `machine`. timeouts: ms, of the watchdogs; cause: what reset_cause() says."""

    cause = 1  # machine.PWRON_RESET

    def __init__(self):
        self.timeouts = []

    def reset_cause(self):
        return self.cause

    def WDT(self, timeout):
        self.timeouts.append(timeout)
        return self

    def reset(self):
        raise Restart


class Command:
    msg_id = "17"
    version = "2.0.0"
    sign = "d41d8cd98f00b204e9800998ecf8427e"


class Agent:
    """What the trial needs of ota.OTA."""

    trial_s = 300
    late_s = 600
    self_test = wdt = tested = trust = None
    version = due = calm = None
    _also = None
    _phase = 1  # ready


class TrialCase(unittest.TestCase):
    def setUp(self):
        self._records = boot.read()
        self._path = sys.path[:]
        self.forget()
        self.machine = Machine()
        sys.modules["machine"] = self.machine  # for what is loaded from here on
        self.agent = Agent()
        self.load()
        self.running = images.head()  # what the running slot begins with, see load()
        self.journal = Journal()

    def tearDown(self):
        sys.path[:] = self._path
        sys.modules["machine"] = machine
        self.unload()
        sys.modules.pop("firmware", None)
        for name in (FROZEN + "/firmware.py", "firmware.py"):
            try:
                os.remove(name)
            except OSError:
                pass
        try:
            os.rmdir(FROZEN)
        except OSError:
            pass
        boot.write(*self._records)
        self.forget()

    def forget(self):
        for key in "ab":
            try:
                NVS("ota").erase_key(key)
            except OSError:
                pass

    def load(self):
        # The agent drops it, so each start has another one.
        self.unload()

        import ota.slot

        trial = ota.slot
        trial.machine = self.machine
        real = trial.head

        def head(partition):
            here = partition.info()[1] == trial.running().info()[1]
            return self.running if here and self.running else real(partition)

        trial.head = head
        self.trial = trial

    def unload(self):
        # A module that stays loaded would keep the machine of this test.
        import ota

        for name in ("slot", "late"):
            if sys.modules.pop("ota." + name, None):
                delattr(ota, name)

    def begin(self):
        return self.trial.begin(self.agent, self.journal, "0.9")

    def begins(self, records, state=SWITCHING, slot=boot.OTHER, code=0):
        # A start with these boot records and this journal: what begin() returned, "restart" when
        # it restarted.
        boot.write(*records)
        self.load()
        self.journal = Journal()
        self.journal.start(Command, state, slot)
        self.journal.code = code
        self.journal.write(state)
        try:
            return self.begin()
        except Restart:
            return "restart"

    def remembered(self):
        # State and code as the next start finds them.
        found = read_journal()
        return found.state, found.code
