"""The campaign's checks: a made-up world that is well, and one thing wrong in it."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tools.faults import check
from tools.faults.check import LATE_FAILURE, SUCCEEDED
from tools.faults.record import Boot, Heard, Record
from tools.faults.scene import PLACES
from tools.faults.world import Failed
from tools.platform import model
from tools.platform.model import Task

OLD, NEW = "1.0.0", "1.1.0"
IMAGES = {OLD: b"old", NEW: b"new"}


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
            fault=None,
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


def test_outcome_is_told_again_for_the_get_that_brought_the_command_once_more(world):
    again = progress("succeeded", msg_id="8")
    world.record.heard.insert(1, again)
    fails("1.1.0: ", outcome, world)  # nobody asked by that id
    world.record.heard.insert(1, Heard("get", "8", None, {"firmwareVersion": ""}, 1))
    outcome(world)
    again.data.update(progress("failed", code=460).data)
    fails("1.1.0: ", outcome, world)  # but another outcome is a contradiction


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


@pytest.mark.parametrize(
    ("place", "fault", "ours"),
    [("nvs", "5:random:1", 0), ("nvs", None, 3), ("ota_0", "5:random:1", 3)],
)
def test_violations_of_nvs_behind_a_fault_are_not_the_agents(world, tmp_path, place, fault, ours):
    world.device.flash_path = tmp_path / "flash.bin"
    world.device.fault = fault
    world.device.counters["violations"] = 3
    file = tmp_path / "flash.bin.violations"
    file.write_text(f"{PLACES[place] + 8} 1\n{PLACES[place] + 40} 2\n")
    if ours:
        fails(f"{ours} flash violations", check.end, world)
    else:
        check.end(world)


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
