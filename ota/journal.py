"""
What must survive a restart: one record of the upgrade, how far it came, and which version each
slot's image was announced as.

In NVS, in two blobs written in turns, so that a power cut leaves the old or the new record (a cut
while a blob is replaced can lose both its old and its new value). Without NVS all goes on, only
nothing is remembered. Source: docs/hardware.md, "NVS".
"""

import json

from esp32 import NVS

# States of the record; the other files repeat those that they need.
_IDLE = const(0)
_WAITING = const(1)  # a silent one, waits for the next start
_FETCHING = const(2)
_SWITCHING = const(3)  # the slot is complete; `set_boot` comes next, or was
_DONE = const(4)  # ended, to be reported: succeeded when code is 0
# failed, the platform knows: remembered, so that no copy of that command is taken
_TOLD = const(5)

_RECORD_MAX = const(960)  # bytes: all texts at their greatest length, and their names


class Journal:
    """
    The record. state: int; code: int, why it failed, 0 = did not; progress: int, where it stopped;
    slot: int, subtype of the slot that is written; units: int, how many 64 KiB are in it; late:
    int, the slot that was confirmed last and how many crashes it still has, see late.py; msg_id,
    version, sign: str, of the command; v16, v17, ...: str, the version of the image in that slot
    behind the 16 hex digits that tell its build.
    """

    # What is in NVS.
    state = code = progress = slot = units = turn = late = 0
    msg_id = version = sign = ""

    def load(self):
        """Reads the newer one of the two records. Returns self."""
        for key in "ab":
            try:
                buf = bytearray(_RECORD_MAX)
                nvs = NVS("ota")
                record = json.loads(buf[: nvs.get_blob(key, buf)])
                if record["turn"] > self.turn:
                    for name in record:  # whoever wrote it
                        if type(record[name]) != type(getattr(Journal, name, "")):  # noqa: E721
                            raise ValueError
                    for name in record:
                        setattr(self, name, record[name])
                    units = nvs.get_i32("units")
                    if units >> 10 == self.turn & 1023:
                        self.units = units & 1023
            except Exception:  # there is none, or it is not ours: a start must not fail for it
                pass
        return self

    def save(self, state, note=None):
        """
        Writes the record with a new state. Or, while it stays the same, a note beside it: how far
        a download came. That is one number, the record is many.
        """
        self.state = state
        try:
            nvs = NVS("ota")
            if note:
                nvs.set_i32("units", (self.turn & 1023) << 10 | note)
            else:
                self.turn += 1
                nvs.set_blob("ab"[self.turn & 1], json.dumps(self.__dict__))
            nvs.commit()
        except OSError:
            pass

    def take(self, cmd, state, slot=0, units=0):
        """Begins the record of a command that is taken on, and writes it."""
        self.code = self.progress = 0
        self.slot = slot
        self.units = units
        self.msg_id = cmd.msg_id
        self.version = cmd.version
        self.sign = cmd.sign
        self.save(state)
