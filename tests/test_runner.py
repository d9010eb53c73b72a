"""The runner of unix_port_tests/ fails when it should: a green run means something."""

import pytest

from tools.device.layout import GENERATIONS
from tools.mpytest import Outcome, Runner, report
from tools.toolchain import micropython

HEAD = "import sys, time, unittest\nclass Tests(unittest.TestCase):\n"

# name: (body, passed, failed, skipped, a word of the reason)
FILES = {
    "good": ("def test_a(self): pass", 1, 0, 0, ""),
    "failed": ("def test_a(self): self.assertEqual(1, 2)", 0, 1, 0, ""),
    "error": ("def test_a(self): unknown\n def test_b(self): pass", 1, 1, 0, ""),
    "set_up": ("def setUp(self): unknown\n def test_a(self): pass", 0, 1, 0, ""),
    "tear_down": ("def tearDown(self): unknown\n def test_a(self): pass", 0, 1, 0, ""),
    "torn_down": ("def tearDown(self): print(7)\n def test_a(self): self.fail()", 0, 1, 0, ""),
    "skipped": ("def test_a(self): raise unittest.SkipTest('no gold')", 0, 0, 1, ""),
    "exits": ("def test_a(self): sys.exit(0)", 0, 1, 0, ""),
    "no_test": ("pass", 0, 1, 0, "no test"),
    "syntax": ("def test_a(self) pass", 0, 1, 0, "died"),
    "lies": ("pass\nprint('RESULT 1 0 0')\nsys.exit(3)", 1, 1, 0, "exit status 3"),
    "import_exits": ("pass\nsys.exit(0)", 0, 1, 0, "died"),
    "hangs": ("def test_a(self):\n  while True: time.sleep(1)", 0, 1, 0, "killed"),
    "violates": (
        "def test_a(self):\n"
        "  from esp32 import Partition\n"
        "  slot = Partition(Partition.RUNNING).get_next_update()\n"
        "  slot.writeblocks(0, b'\\x00', 0)\n"
        "  slot.writeblocks(0, b'\\x01', 0)",
        1,
        1,
        0,
        "1 flash violations",
    ),
    "dies": ("def test_a(self): import os; os.system('kill -9 $PPID')", 0, 1, 0, "died"),
}


@pytest.mark.parametrize("name", FILES)
def test_outcome_of_a_file(name, tmp_path):
    body, passed, failed, skipped, reason = FILES[name]
    deadline_s = 2 if name == "hangs" else 60
    one = _run(tmp_path, f"{HEAD} {body}\n", deadline_s=deadline_s)
    assert (one.passed, one.failed, one.skipped) == (passed, failed, skipped), one.output
    assert reason in one.why
    assert bool(reason) == bool(one.why)
    assert ("\n7\n" in one.output) == (name == "torn_down")
    assert ("SKIP Tests.test_a no gold" in one.output) == (name == "skipped")
    assert report([one], out=lambda line: None) == (name != "good")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_file_sees_its_generation_and_a_small_heap(tmp_path, generation):
    body = (
        "def test_a(self):\n"
        "  import gc, os, ota.protocol\n"
        f"  self.assertEqual(os.getenv('OTA_SIM_IDF'), {generation!r})\n"
        "  self.assertTrue(gc.mem_free() + gc.mem_alloc() <= 160 * 1024)\n"
        "  self.assertTrue(os.getenv('OTA_SIM_FLASH').startswith('/'))\n"
    )
    one = _run(tmp_path, f"{HEAD} {body}", generation)
    assert (one.passed, one.failed) == (1, 0), one.output


def test_another_port(tmp_path):
    """Its modules come first; what lies beside them lies beside them still."""
    port = tmp_path / "port"
    (port / "inner").mkdir(parents=True)
    (port / "esp32.py").write_text("from inner import NAME\nHERE = __file__.rsplit('/', 1)[0]\n")
    (port / "inner" / "__init__.py").write_text("NAME = 'other'\n")
    (port / "esp32.mpy").write_text("an old one")
    (port / "data.txt").write_text("beside")
    body = (
        "def test_a(self):\n"
        "  import esp32, gc\n"
        "  self.assertEqual(esp32.NAME, 'other')\n"
        "  self.assertEqual(open(esp32.HERE + '/data.txt').read(), 'beside')\n"
        "  self.assertTrue(gc.mem_free() + gc.mem_alloc() <= 160 * 1024)\n"
    )
    one = _run(tmp_path, f"{HEAD} {body}", port=port)
    assert (one.passed, one.failed) == (1, 0), one.output
    assert (port / "esp32.mpy").read_text() == "an old one"


def test_another_interpreter(tmp_path):
    """One that reads no .mpy of ours gets sources."""
    interpreter = tmp_path / "other"
    interpreter.write_text(
        f'#!/bin/sh\ncase "$*" in *_mpy*) echo 5;; *) exec "{micropython()}" "$@";; esac\n'
    )
    interpreter.chmod(0o755)
    body = (
        "def test_a(self):\n"
        "  import ota.protocol\n"
        "  self.assertTrue(ota.protocol.__file__.endswith('protocol.py'))\n"
    )
    one = _run(tmp_path, f"{HEAD} {body}", interpreter=interpreter)
    assert (one.passed, one.failed) == (1, 0), one.output


def _run(tmp_path, content, generation="5.5", **settings):
    tests, work = tmp_path / "tests", tmp_path / "work"
    tests.mkdir()
    work.mkdir()
    file = tests / "test_it.py"
    file.write_text(content)
    return Runner(work, tests=tests, **settings).run(file, generation)


def _outcome(passed, failed, skipped):
    return Outcome("file", passed, failed, skipped, "", "SKIP Tests.test_a why\n")


@pytest.mark.parametrize(
    ("outcomes", "status", "closing"),
    [
        ([_outcome(3, 0, 0), _outcome(4, 0, 0)], 0, "7 passed, 0 failed, 0 skipped"),
        ([_outcome(3, 0, 0), _outcome(4, 1, 0)], 1, "7 passed, 1 failed, 0 skipped"),
        ([_outcome(9, 0, 1)], 0, "9 passed, 0 failed, 1 skipped"),
        ([_outcome(8, 0, 1)], 1, "8 passed, 0 failed, 1 skipped"),
        ([], 1, "0 passed, 0 failed, 0 skipped"),
    ],
    ids=["good", "failed", "a tenth skipped", "more skipped", "nothing"],
)
def test_closing_line_and_status(outcomes, status, closing):
    lines = []
    assert report(outcomes, out=lines.append) == status
    assert lines[-1] == closing
