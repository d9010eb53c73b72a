"""The fault campaign itself: its seeded bugs, its report, and that its checks can fail."""

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tools.faults import check, cli, mutants, report, runner
from tools.faults.bugs import BUGS, Bug
from tools.faults.check import LATE_FAILURE, SUCCEEDED
from tools.faults.groups import GROUPS
from tools.faults.mutants import Hunt
from tools.faults.record import Boot, Heard, Record
from tools.faults.report import Campaign, Tally
from tools.faults.world import Failed
from tools.platform import model
from tools.platform.model import Task
from tools.toolchain import ROOT

OLD, NEW = "1.0.0", "1.1.0"
IMAGES = {OLD: b"old", NEW: b"new"}


# Seeded bugs


def test_bugs_fit_the_code():
    names = {bug.name for bug in BUGS}
    assert len(names) == len(BUGS)
    for bug in BUGS:
        text = (ROOT / bug.file).read_text(encoding="ascii")
        assert text.count(bug.old) == 1, bug.name
        assert bug.old != bug.new, bug.name
        assert bug.cases, bug.name
        for case in bug.cases:
            assert case.split("/")[0] in GROUPS, f"{bug.name}: {case}"


def test_every_class_catches_a_bug():
    first = {bug.cases[0].split("/")[0] for bug in BUGS}
    assert first == set(GROUPS)


def test_no_change_is_not_caught():
    text = 'seq, _, state, crc = unpack("<I20sII", entry)'
    same = Bug("nothing", "ota/slot.py", text, text, ("cut/0/30/before",))
    assert not mutants.is_caught(same)


def test_change_that_breaks_all_is_caught():
    text = 'seq, _, state, crc = unpack("<I20sII", entry)'
    broken = Bug("all", "ota/slot.py", text, "raise RuntimeError", ("cut/0/30/before",))
    assert mutants.is_caught(broken)


@pytest.mark.parametrize("text", ["this stands nowhere", "raise OTAError"])
def test_bug_whose_text_is_not_there_once_is_an_error(text):
    with pytest.raises(ValueError, match="slot"):
        mutants.is_caught(Bug("gone", "ota/slot.py", text, "", ("cut/0/30/before",)))


SAME = Bug("nothing", "ota/slot.py", "def ", "def ", ("nosuch/1",))


def test_hunt_plays_the_good_code_first(monkeypatch):
    monkeypatch.setattr(mutants, "is_caught", lambda bug: "hostile/hand/null" in bug.cases)
    sound = replace(SAME, cases=("nosuch/1", "hostile/hand/null"))
    found = mutants.hunt([SAME, sound, replace(SAME, cases=("cut/0/0/before",))])
    assert (found.seeded, found.missed) == (3, ["bugs/nothing", "bugs/nothing"])


def test_bug_that_cannot_be_tried_is_missed(capsys):
    gone = replace(SAME, name="gone", old="this stands nowhere")
    assert mutants.hunt([gone], ["nosuch/1"]).missed == ["bugs/gone"]
    assert "ValueError: gone" in capsys.readouterr().err


# Cases by name


def test_bug_by_its_name():
    assert [mutants.named(name) for name in mutants.names()] == list(BUGS)


def test_names_of_a_class_and_of_the_bugs_are_listed(capsys):
    assert cli.main(["--class", "network", "--class", "bugs", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == runner.names_of("network") + mutants.names()


@pytest.mark.parametrize(("missed", "status"), [([], 0), (["one"], 1)])
def test_bug_is_played_alone(monkeypatch, capsys, missed, status):
    monkeypatch.setattr(mutants, "hunt", lambda bugs: Hunt(1, missed))
    assert cli.main(mutants.names()[:1]) == status
    assert ("not caught" in capsys.readouterr().out) == bool(missed)


def test_case_of_an_unknown_class_fails_and_names_it():
    result = runner.play("nosuch/1")
    assert "KeyError: 'nosuch'" in result.why


# The report


def campaign(missed=(), failed=()):
    tally = Tally("power cuts", cases=3, tried=3, survived=3 - len(failed), failed=list(failed))
    return Campaign([tally], Hunt(40, list(missed)), seed=7, seconds=600)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "JSON", tmp_path / "build" / "faults.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "faults.md")
    return tmp_path


def test_report_writes_each_class_and_the_bugs(files):
    report.write(campaign(missed=["one"]))
    rows = json.loads((files / "build" / "faults.json").read_text())
    assert rows == [
        {"class": "power cuts", "tried": 3, "survived": 3},
        {"class": "seeded bugs", "seeded": 40, "caught": 39},
    ]
    page = (files / "faults.md").read_text()
    assert "| power cuts | 3 | 3 | 3 |" in page
    assert "| seeded bugs | | 40 | 39 caught |" in page
    assert "Seed 7; 10 minutes" in page


def test_report_shows_what_failed_and_what_was_missed(capsys):
    report.show(campaign(missed=["a bug"], failed=["cut/0/1/before"]))
    shown = capsys.readouterr().out
    assert "not survived: cut/0/1/before" in shown
    assert "not caught: a bug" in shown


def test_campaign_is_good_only_when_all_is():
    assert campaign().good
    assert not campaign(missed=["a bug"]).good
    assert not campaign(failed=["cut/0/1/before"]).good
    assert not Campaign([Tally("nothing played")], None, 1, 1).good


def test_tally_counts_what_was_tried():
    tally = Tally("some")
    tally.add(runner.Result("some/1", 100, "", 1))
    tally.add(runner.Result("some/2", 10, "why", 1))
    assert (tally.cases, tally.tried, tally.survived) == (2, 110, 100)
    assert tally.failed == ["some/2"]


# The checks: a made-up world that is well, and one thing wrong in it


def slots(running):
    # SHA-256 of each slot.
    held = {"ota_0": IMAGES[OLD], "ota_1": IMAGES[NEW]} if running == "ota_1" else {}
    held = held or {"ota_0": IMAGES[OLD], "ota_1": b"blank"}
    return {label: hashlib.sha256(content).digest() for label, content in held.items()}


def progress(status, boots=2, msg_id="7", code=None):
    data = {"firmwareVersion": NEW, "status": status}
    return Heard("progress", msg_id, None, data | ({"code": code} if code else {}), boots)


def version(text, boots):
    return Heard("version", "1", None, {"firmwareVersion": text}, boots)


@pytest.fixture
def world():
    record = Record(
        boots=[
            Boot("ota_0", 1, OLD, slots("ota_0"), 0),
            Boot("ota_1", 2, NEW, slots("ota_1"), 100),
        ],
        heard=[version(OLD, 1), progress("succeeded"), version(NEW, 2)],
        idles=[70000, 71000],
    )
    record.attempts = 1
    return SimpleNamespace(
        record=record,
        approved=dict(IMAGES),
        story=lambda: "story",
        device=SimpleNamespace(
            running="ota_1",
            slot_bytes=lambda label, size: IMAGES[NEW],
            counters={"violations": 0, "aborts": 0},
        ),
        backend=SimpleNamespace(
            msg_id=lambda task: "7",
            version_of=lambda task: NEW,
            attempts=lambda version: record.attempts,
            device=SimpleNamespace(version=NEW),
            statuses=[(1, "Pushed"), (1, "Succeeded")],
        ),
        broker=SimpleNamespace(errors=[]),
        web=SimpleNamespace(requests=[SimpleNamespace(start=n) for n in (0, 8192)]),
    )


def task(**changes):
    return replace(Task(1, "pk", "dev", status=model.SUCCEEDED), **changes)


def outcome(world, ended=None, allowed=frozenset((SUCCEEDED,)), **more):
    return check.outcome(world, ended or task(), allowed, **more)


def fails(what, act, *args, **named):
    with pytest.raises(Failed, match=what):
        act(*args, **named)


def test_world_that_is_well(world):
    assert outcome(world) == SUCCEEDED
    check.end(world)
    check.resumed(world, 8192)


def test_outcome_is_an_allowed_one(world):
    fails("is not one of", outcome, world, allowed=frozenset((460,)))


def test_success_is_the_image_that_runs(world):
    world.device.slot_bytes = lambda label, size: IMAGES[OLD]
    fails("Succeeded, and 1.0.0 runs", outcome, world)


def test_failure_is_not_the_image_that_runs(world):
    failed = task(status=model.FAILED, code=460)
    fails("460, and 1.1.0 runs", outcome, world, failed, frozenset((460,)))


def test_no_process_runs_no_image(world):
    world.device.running = None
    fails("Succeeded, and None runs", outcome, world)


def test_version_told_last_is_the_one_that_runs(world):
    world.backend.device.version = OLD
    fails("the version told last", outcome, world)


@pytest.mark.parametrize(
    "statuses", [[], [(1, "Succeeded")] * 2, [(1, "Failed (Firmware Burn Failed)")] * 2]
)
def test_outcome_is_counted_once(world, statuses):
    world.backend.statuses = statuses
    fails("counted as", outcome, world)


def test_retry_is_counted_too(world):
    fails("counted as", outcome, world, task(attempt=1))
    world.backend.statuses.insert(1, (1, "To be Retried (Firmware Burn Failed)"))
    outcome(world, task(attempt=1))


def test_outcome_is_told_by_the_device(world):
    del world.record.heard[1]
    fails("no outcome of 1.1.0 was told", outcome, world)
    outcome(world, told=False)


def test_two_outcomes_of_one_attempt_are_a_contradiction(world):
    world.record.heard.insert(1, progress("failed", code=460))
    fails("1.1.0: ", outcome, world)


def test_two_outcomes_by_one_id_are_a_contradiction(world):
    world.record.attempts = 2
    world.record.heard.insert(1, progress("failed", code=460))
    fails("1.1.0: ", outcome, world)
    world.record.heard[1].msg_id = "6"
    outcome(world)


@pytest.mark.parametrize("told", [("failed", 460), ("succeeded", 1)])
def test_success_is_told_as_one(world, told):
    status, code = told
    world.record.heard[1] = progress(status, code=code)
    fails("counted ", outcome, world)


@pytest.mark.parametrize("told", [("succeeded", None), ("failed", 461), ("failed", 460)])
def test_failure_is_told_by_its_code(world, told):
    status, code = told
    world.device.slot_bytes = lambda label, size: IMAGES[OLD]
    world.backend.device.version = OLD
    world.record.heard[1] = progress(status, code=code)
    ended = world, task(status=model.FAILED, code=460), frozenset((460,))
    if told == ("failed", 460):
        outcome(*ended)
    else:
        fails("counted ", outcome, *ended)


def test_outcome_is_told_by_an_id_that_the_device_was_given(world):
    world.record.heard[1].msg_id = "8"
    fails("another id, '8'", outcome, world)
    world.record.heard.insert(1, Heard("get", "8", None, {"firmwareVersion": ""}, 1))
    outcome(world)


def test_same_outcome_twice_is_none(world):
    world.record.heard.append(progress("succeeded"))
    outcome(world)


def test_nothing_follows_a_late_failure(world):
    late = progress("failed", code=LATE_FAILURE)
    world.record.heard.insert(1, late)
    fails("1.1.0: ", outcome, world)


def test_follow_wants_a_success(world):
    world.offer = lambda version, **batch: task(status=model.FAILED, code=430)
    world.finish = lambda task: None
    fails("430", check.follow, world)


@pytest.mark.parametrize("start", [4096, 8193, 0])
def test_download_goes_on_in_the_block_that_broke(world, start):
    world.web.requests[1].start = start
    fails("requests from", check.resumed, world, 8192)


def test_download_that_does_not_go_on(world):
    del world.web.requests[1]
    fails("requests from", check.resumed, world, 8192)


def test_each_start_boots(world):
    world.record.boots[1].label = None
    fails("start 1: no boot", check.end, world)


def test_each_start_has_an_approved_image(world):
    world.record.boots[0].version = None
    fails("start 0: no approved image", check.end, world)


def test_slot_that_runs_is_not_touched_between_starts(world):
    world.record.boots[1].slots["ota_0"] = b"other"
    fails("ota_0 changed while it ran", check.end, world)


def test_slot_that_runs_last_is_not_touched(world):
    world.device.slot_bytes = lambda label, size: b"other"
    fails("the running slot changed", check.end, world)


def test_flash_violation(world):
    world.device.counters["violations"] = 1
    fails("1 flash violations", check.end, world)


def test_write_to_the_running_slot(world):
    world.device.counters["aborts"] = 1
    fails("a write to the running slot", check.end, world)


def test_malformed_message(world):
    world.record.malformed.append(b"{")
    fails("malformed", check.end, world)


def test_malformed_packet(world):
    world.broker.errors.append("CONNECT comes first")
    fails("not MQTT", check.end, world)


def test_untrue_version(world):
    world.record.heard.append(version(NEW, 1))
    fails("1.0.0 ran", check.end, world)


def test_heap_that_grew(world):
    world.record.idles.append(80000)
    fails("the heap grew by 10000 bytes", check.end, world)
