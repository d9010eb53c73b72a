"""The demo: what it judges, that it ends in time, and once the whole of it, fast."""

import os
import signal
import subprocess
import sys
import time
from copy import deepcopy

import pytest

from tools.demo import cli, story
from tools.demo.verdict import BROKEN, CUT, GOOD, OLD, PLAIN, TRIED, Facts, Seen, judge
from tools.platform.engine import Row
from tools.platform.files import Access
from tools.toolchain import ROOT

SIZE = 1000
COUNTERS = {"operations": 9, "erases": 2, "violations": 0, "aborts": 0}


def access(path, **more):
    whole = {"range": "", "method": "GET", "status": 200, "length": SIZE, "sent": SIZE}
    return Access(path, **{**whole, **more})


def seen(*starts):
    return Seen(GOOD, "ota_1", True, True, list(starts), dict(COUNTERS))


def row(name, status="Succeeded", version=GOOD, remark="", code=None):
    return Row(name, status, 100, version, remark, code, "")


TRUTH = Facts(
    before=[OLD] * 3,
    good=[row(PLAIN), row(CUT), row(TRIED)],
    broken=[row(TRIED, "Failed", GOOD, "Firmware Burn Failed", 461)],
    log=[
        access("/good"),
        access("/good"),
        access("/good", sent=420),
        access("/good", range="bytes=400-", status=206, start=400, length=600, sent=600),
        access("/broken"),
    ],
    paths=["/good", "/broken"],
    size=SIZE,
    devices={
        PLAIN: seen("ota_0", "ota_1"),
        CUT: seen("ota_0", "ota_0", "ota_1"),
        TRIED: seen("ota_0", "ota_1", "ota_0", "ota_1"),
    },
)

# What is changed, to what, and a word of the one check that turns false by it.
LIES = [
    (lambda f: f.before.pop(), "from 1.0.0"),
    (lambda f: f.before.__setitem__(1, GOOD), "from 1.0.0"),
    (lambda f: f.good.pop(), "three devices"),
    (lambda f: setattr(f.good[1], "status", "Failed"), "three devices"),
    (lambda f: setattr(f.good[2], "version", OLD), "three devices"),
    (lambda f: f.log.pop(3), "Range"),
    (lambda f: f.log.insert(0, access("/good")), "Range"),
    (lambda f: setattr(f.log[2], "sent", SIZE), "Range"),
    (lambda f: setattr(f.log[3], "status", 200), "Range"),
    (lambda f: setattr(f.log[3], "range", "bytes=0-"), "Range"),
    (lambda f: setattr(f.log[3], "start", 0), "Range"),
    (lambda f: setattr(f.log[2], "sent", 399), "Range"),
    (lambda f: setattr(f.log[3], "sent", 599), "Range"),
    (lambda f: f.broken.clear(), "rolled back"),
    (lambda f: f.broken.__setitem__(0, row(TRIED, version=BROKEN)), "rolled back"),
    (lambda f: setattr(f.broken[0], "remark", "Push Failed"), "rolled back"),
    (lambda f: setattr(f.broken[0], "code", 460), "rolled back"),
    (lambda f: setattr(f.broken[0], "device", PLAIN), "rolled back"),
    (lambda f: f.log.append(access("/broken")), "rolled back"),
    (lambda f: f.devices[TRIED].starts.extend(["ota_0", "ota_1"]), "started once"),
    (lambda f: f.devices[PLAIN].starts.append("ota_1"), "started once"),
    (lambda f: setattr(f.devices[CUT], "version", OLD), "all run"),
    (lambda f: setattr(f.devices[TRIED], "slot", "ota_0"), "all run"),
    (lambda f: setattr(f.devices[TRIED], "slot", None), "all run"),
    (lambda f: setattr(f.devices[PLAIN], "confirmed", False), "all run"),
    (lambda f: setattr(f.devices[CUT], "intact", False), "bytes of that slot"),
    (lambda f: f.devices[CUT].counters.update(violations=1), "violations"),
    (lambda f: f.devices[CUT].counters.update(aborts=1), "violations"),
    (lambda f: f.devices[CUT].counters.update(operations=0), "violations"),
]


def test_the_truth_is_true():
    assert all(check.true for check in judge(TRUTH))


@pytest.mark.parametrize(("lie", "word"), LIES)
def test_each_lie_is_seen(lie, word):
    facts = deepcopy(TRUTH)
    lie(facts)
    wrong = [check.text for check in judge(facts) if not check.true]
    assert len(wrong) == 1
    assert word in wrong[0]


def test_a_device_that_is_missing_is_seen():
    facts = deepcopy(TRUTH)
    del facts.devices[PLAIN]
    assert not all(check.true for check in judge(facts))


@pytest.mark.parametrize(("code", "status"), [(461, 0), (460, 1)])
def test_exit_status_is_the_verdict(code, status, monkeypatch, capsys):
    facts = deepcopy(TRUTH)
    facts.broken[0].code = code
    monkeypatch.setattr(story, "play", lambda *_: facts)
    assert cli.main([]) == status
    out = capsys.readouterr().out
    assert ("FALSE" in out) == bool(status)
    assert f"({code})" in out


def test_a_demo_that_hangs_ends_in_time(monkeypatch, capsys):
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)]
    monkeypatch.setattr(cli, "DEADLINE", 1)
    monkeypatch.setattr(story, "play", lambda *_: time.sleep(60))
    assert cli.main([]) == 1
    assert "not over within 1 s" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)] == handlers


def test_all_of_it_without_a_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tools", "demo", "--seconds", "4"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=cli.DEADLINE + 60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FALSE" not in done.stdout
    assert "network cut" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""
