"""
What must survive a restart: one record of the upgrade, how far it came, and the version of each slot's image.

In NVS, so that a power cut leaves the old or the new record: the record lies in two blobs written in turns (a cut in a blob
can lose both the old and the new value of that one key), the progress in an i32 (a cut leaves the old or the new one).
Without NVS all goes on, only nothing is remembered.
Source: docs/hardware.md, "NVS".
"""

import json
from binascii import crc32

from esp32 import NVS
from micropython import const

# States of the record; the other files repeat those that they need.
_IDLE = const(0)
_WAITING = const(1)  # a silent one, waits for the next start
_FETCHING = const(2)
_SWITCHING = const(3)  # the slot is complete; `set_boot` comes next, or was
_DONE = const(4)  # ended, to be reported: succeeded when code is 0
_TOLD = const(5)  # failed, the platform knows: remembered, so that no copy of that command is taken

_RECORD_MAX = const(400)  # bytes: the texts at their greatest length, and their names


class Journal:
    """
    The record. state: int; code: int, why it failed, 0 = did not; progress: int, where it stopped; slot: int, subtype of the slot that
    is written; msg_id, version, sign: str, of the command.
    """

    # What is in NVS.
    state = code = progress = slot = turn = 0
    msg_id = version = sign = ""

    def load(self):
        """Reads the newer one of the two records. Returns self."""
        for key in "ab":
            data = read(key)
            if data[:4] == _sum(data[4:]):
                record = json.loads(data[4:])
                # Turns count modulo 256: the newer one is less than half a round ahead.
                if (record["turn"] - self.turn) & 255 < 128:
                    for name in record:
                        setattr(self, name, record[name])
        return self

    def save(self, state):
        """Writes the record with a new state."""
        self.state = state
        self.turn = (self.turn + 1) & 255
        data = json.dumps(self.__dict__).encode()
        write("ab"[self.turn & 1], _sum(data) + data)

    def take(self, command, state, slot=0):
        """Begins the record of a command that is taken on, and writes it."""
        self.code = self.progress = 0
        self.slot = slot
        self.msg_id = command.msg_id
        self.version = command.version
        self.sign = command.sign
        self.save(state)


def read(key):
    """The value of a key, as bytes, b"" when there is none. "pos" is an i32, all others are blobs."""
    try:
        nvs = NVS("ota")
        if key == "pos":
            return nvs.get_i32(key).to_bytes(4, "little")
        buf = bytearray(_RECORD_MAX)
        return bytes(buf[: nvs.get_blob(key, buf)])
    except OSError:
        return b""


def write(key, value):
    """value: bytes, or int for an i32."""
    try:
        nvs = NVS("ota")
        if key == "pos":
            nvs.set_i32(key, value)
        else:
            nvs.set_blob(key, value)
        nvs.commit()
    except OSError:
        pass


def _sum(data):
    return crc32(data).to_bytes(4, "little")
