"""
Tests of the class Journal of ota/agent.py, and of load() in ota/slot.py: a record that comes back
after a restart, also when half of it is lost.

A restart is a new Journal that loads. Source of the expected values: docs/protocol.md (lengths of
the fields); docs/hardware.md, "NVS".
"""

import json
import unittest

from esp32 import NVS
from journals import read_journal

import ota.agent
import ota.slot
from ota.agent import Journal
from ota.slot import load

journal = ota.agent
trial = ota.slot

_FETCHING = 2
_SWITCHING = 3
_DONE = 4

_FIELDS = ("state", "code", "progress", "slot", "units", "msg_id", "version", "sign")


class Command:
    msg_id = "17"
    version = "1.1.0"
    sign = "d41d8cd98f00b204e9800998ecf8427e"


def forget(*keys):
    # Takes records out of NVS, as a cut in the middle of a blob can.
    nvs = NVS("ota")
    for key in keys:
        try:
            nvs.erase_key(key)
        except OSError:
            pass


def newest():
    # 0 or 1: where the newest record lies, by its progress.
    found = []
    for key in "ab":
        buf = bytearray(800)
        try:
            found.append(json.loads(buf[: NVS("ota").get_blob(key, buf)])["progress"])
        except OSError:  # none
            found.append(-1)
    return found.index(max(found))


def fields(record):
    return [getattr(record, name) for name in _FIELDS]


class Broken:
    """An NVS that cannot be opened."""

    def __init__(self, namespace):
        raise OSError(-4353)


class Full:
    """An NVS that reads, and does not write. where: the method that fails."""

    where = "set_blob"

    def __init__(self, namespace):
        self._nvs = NVS(namespace)

    def get_blob(self, key, buf):
        return self._nvs.get_blob(key, buf)

    def set_blob(self, key, value):
        if self.where == "set_blob":
            raise OSError(-4357)
        self._nvs.set_blob(key, value)

    def commit(self):
        raise OSError(-24577)


class JournalCase(unittest.TestCase):
    def setUp(self):
        forget("a", "b")

    def tearDown(self):
        journal.NVS = trial.NVS = NVS
        forget("a", "b")


class RecordTests(JournalCase):
    def test_nothing_there(self):
        self.assertEqual(fields(read_journal()), [0, 0, 0, 0, 0, "", "", ""])

    def test_load_returns_the_journal(self):
        one = Journal()
        self.assertIs(load(one), one)

    def test_take_begins_a_record(self):
        one = Journal()
        one.code, one.progress = 440, 37
        one.start(Command, _FETCHING, 17, 5)
        expected = [_FETCHING, 0, 0, 17, 5, "17", "1.1.0", Command.sign]
        self.assertEqual(fields(one), expected)
        self.assertEqual(fields(read_journal()), expected)

    def test_take_without_slot(self):
        one = Journal()
        one.start(Command, _FETCHING, 17, 5)
        one.start(Command, _DONE)
        self.assertEqual(fields(read_journal())[:5], [_DONE, 0, 0, 0, 0])

    def test_save_writes_what_was_set(self):
        one = Journal()
        one.start(Command, _FETCHING, 17)
        one.code, one.progress, one.units = 431, 62, 9
        one.write(_DONE)
        self.assertEqual(fields(read_journal())[:5], [_DONE, 431, 62, 17, 9])

    def test_nothing_is_written_without_save(self):
        one = Journal()
        one.start(Command, _FETCHING)
        one.code = 431
        self.assertEqual(read_journal().code, 0)

    def test_versions_of_the_slots_stay_with_the_next_command(self):
        one = Journal()
        one.v17 = "a0a1a2a3a4a5a6a71.1.0"
        one.start(Command, _SWITCHING, 17)
        two = read_journal()
        two.v16 = "b0b1b2b3b4b5b6b71.2.0"
        two.start(Command, _FETCHING, 16)
        three = read_journal()
        self.assertEqual((three.v16, three.v17), (two.v16, one.v17))

    def test_longest_record(self):
        for msg_id in ("i" * 64, '"' * 64, "\u20ac" * 64):
            one = Journal()
            command = Command()
            command.msg_id, command.version = msg_id, "v" * 100
            one.v16 = one.v17 = "0" * 16 + "v" * 100
            one.up = one.base = "9" * 10 + "f" * 64  # see trust.py
            one.back = "0" * 16
            one.late, one.turn = 17 << 3 | 4, 1 << 30
            one.code, one.progress, one.units = 440, 95, 24
            one.start(command, _FETCHING, 17, 24)
            one.write(_FETCHING)
            self.assertEqual(fields(read_journal()), fields(one), msg_id)


class TurnTests(JournalCase):
    def test_newest_record_at_every_turn(self):
        # More than two rounds of a byte, each one read as after a restart.
        one = Journal()
        for progress in range(520):
            one.progress = progress
            one.write(_FETCHING)
            self.assertEqual(read_journal().progress, progress)

    def test_goes_on_after_a_restart_at_every_turn(self):
        for progress in range(520):
            one = read_journal()
            one.progress = progress
            one.write(_FETCHING)
        self.assertEqual(read_journal().progress, 519)

    def test_record_before_survives_the_loss_of_the_newest(self):
        # A cut while a blob is replaced can lose both of its values.
        for saves in range(2, 7):
            forget("a", "b")
            one = Journal()
            for progress in range(saves):
                one.progress = progress
                one.write(_FETCHING)
            forget("ab"[newest()])
            self.assertEqual(read_journal().progress, saves - 2, saves)

    def test_newest_record_survives_the_loss_of_the_one_before(self):
        one = Journal()
        for progress in range(3):
            one.progress = progress
            one.write(_FETCHING)
        forget("ab"[1 - newest()])
        self.assertEqual(read_journal().progress, 2)

    def test_save_after_a_loss_never_writes_over_the_only_record(self):
        for lost in range(2):
            forget("a", "b")
            one = Journal()
            for progress in range(4):
                one.progress = progress
                one.write(_FETCHING)
            forget("ab"[lost])
            two = read_journal()
            kept = two.progress
            two.progress = 50
            two.write(_FETCHING)
            self.assertEqual(read_journal().progress, 50, lost)
            forget("ab"[newest()])
            self.assertEqual(read_journal().progress, kept, lost)


class BadRecordTests(JournalCase):
    def test_garbage_beside_a_good_record(self):
        for text in (
            b"",
            b"\xff" * 40,
            b"{",
            b"null",
            b"17",
            b"[]",
            b"{}",
            b'{"state": 4, "progress": 99}',
            b'{"turn": null, "progress": 99}',
            b'{"turn": "9", "progress": 99}',
            b'{"turn": {}, "progress": 99}',
            b"x" * 900,
        ):
            for lost in range(2):
                forget("a", "b")
                one = Journal()
                for progress in range(4):
                    one.progress = progress
                    one.write(_FETCHING)
                place = newest() if lost else 1 - newest()
                NVS("ota").set_blob("ab"[place], text)
                self.assertEqual(read_journal().progress, 3 - lost, (text[:32], lost))

    def test_garbage_in_both(self):
        for text in (b"\x00", b"[1]", b'"turn"', b"x" * 900):
            for key in "ab":
                NVS("ota").set_blob(key, text)
            self.assertEqual(fields(read_journal()), [0, 0, 0, 0, 0, "", "", ""], text[:32])

    def test_number_in_the_place_of_a_blob(self):
        one = Journal()
        one.progress = 7
        one.write(_FETCHING)
        other = "ab"[1 - newest()]
        NVS("ota").set_i32(other, 7)
        self.assertEqual(read_journal().progress, 7)


class NoNVSTests(JournalCase):
    def test_goes_on_without_nvs(self):
        journal.NVS = trial.NVS = Broken
        one = read_journal()
        one.start(Command, _FETCHING, 17, 3)
        self.assertEqual(fields(one), [_FETCHING, 0, 0, 17, 3, "17", "1.1.0", Command.sign])

    def test_write_that_fails_is_not_raised(self):
        for where in ("set_blob", "commit"):
            journal.NVS = trial.NVS = Full
            Full.where = where
            one = read_journal()
            one.write(_DONE)
            self.assertEqual(one.state, _DONE, where)

    def test_record_before_stays_when_a_write_fails(self):
        one = Journal()
        one.start(Command, _SWITCHING, 17)
        journal.NVS = trial.NVS = Full
        Full.where = "set_blob"
        one.write(_DONE)
        self.assertEqual(read_journal().state, _SWITCHING)

    def test_save_after_a_failed_one_is_kept(self):
        one = Journal()
        one.start(Command, _SWITCHING, 17)
        journal.NVS = trial.NVS = Full
        Full.where = "set_blob"
        one.write(_SWITCHING)
        journal.NVS = trial.NVS = NVS
        one.write(_DONE)
        self.assertEqual(read_journal().state, _DONE)
