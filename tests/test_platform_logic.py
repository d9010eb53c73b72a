"""The upgrade logic by tables: every status and every remark, with a clock that the tests set."""

import json

import pytest

from tools.platform import logic, model
from tools.platform.books import Books
from tools.platform.model import Batch, Device, Firmware, PlatformError

HOUR = 3600.0


class World:
    """Two devices at 1.0.0, firmware 1.1.0, and what the logic let out."""

    def __init__(self, **settings):
        self.now = 1000.0
        self.logic = logic.Upgrades(
            Books(lambda firmware, *_: f"http://host/{firmware.id}/{firmware.file}")
        )
        self.books = self.logic.books
        self.sent = []
        self.devices = [Device("pk", name, "secret", name, "1.0.0", 1.0) for name in ("d1", "d2")]
        self.firmware = Firmware(1, "pk", "f", "1.1.0", "a.bin", 4096, "ab" * 16, 1.0)
        for record in (*self.devices, self.firmware):
            self.books.enter(record)
        self.settings = {"policy": "standard", "timeout_s": 600, "retries": 0, "interval_s": 60}
        self.settings.update(settings)

    def start(self, devices=None, firmware=1, number=1, valid_s=24 * HOUR):
        ends = self.now + valid_s
        batch = Batch(
            number, firmware, **self.settings, created=self.now, ends=ends, token=f"t{number}"
        )
        left_out, effects = self.logic.start(self.now, batch, devices or self.devices[:1])
        self.take(effects)
        return batch, left_out

    def push(self, **settings):
        batch, _ = self.start(**settings)
        self.tick()
        return batch

    def tick(self, seconds=0.0):
        self.now += seconds
        self.take(self.logic.tick(self.now))

    def say(self, name, data, msg_id="x", code=None, device="d1"):
        message = {"msgId": msg_id, "version": "1.0", "data": data}
        if code is not None:
            message["code"] = code
        payload = json.dumps(message).encode()
        self.take(self.logic.receive(self.now, "pk", device, name, payload))

    def reply(self, code=200, msg_id=None, **data):
        self.say("upgrade_reply", data, msg_id or self.msg_id, code)

    def progress(self, progress, status="downloading", msg_id=None, version="1.1.0", **more):
        data = {"firmwareVersion": version, "status": status, "progress": progress, **more}
        self.say("progress", data, msg_id or self.msg_id)

    def version(self, version="1.1.0"):
        self.say("version", {"firmwareVersion": version})

    def get(self, version="", msg_id="g1", **more):
        """Returns the answer."""
        self.say("get", {"firmwareVersion": version, **more}, msg_id)
        topic, message = self.sent[-1]
        assert topic == "/sys/pk/d1/ota/firmware/get_reply"
        assert message["msgId"] == msg_id
        return message

    def take(self, effects):
        for effect in effects:
            if isinstance(effect, logic.Publish):
                self.sent.append((effect.topic, json.loads(effect.payload)))

    @property
    def commands(self):
        return [message for topic, message in self.sent if topic.endswith("/upgrade")]

    @property
    def msg_id(self):
        return self.commands[-1]["msgId"]

    def task(self, number=1, device="d1"):
        tasks = self.books.tasks(self.books.batches[number])
        return next(task for task in tasks if task.identifier == device)

    def shows(self, number=1):
        task = self.task(number)
        return task.status, task.remark


def test_command_holds_what_the_protocol_says():
    world = World()
    world.push()
    assert world.sent == [
        (
            "/sys/pk/d1/ota/firmware/upgrade",
            {
                "msgId": "t1-1-0",
                "version": "1.0",
                "data": {
                    "policy": "standard",
                    "size": 4096,
                    "firmwareVersion": "1.1.0",
                    "url": "http://host/1/a.bin",
                    "sign": "ab" * 16,
                    "signMethod": "Md5",
                },
            },
        )
    ]


def test_statuses_of_an_upgrade_in_order():
    world = World()
    batch, _ = world.start()
    seen = [world.task().status]
    for step in (
        world.tick,
        world.reply,
        lambda: world.progress(0),
        lambda: world.progress(50),
        lambda: world.progress(100, "succeeded"),
        world.version,
    ):
        step()
        seen.append(world.task().status)
    assert seen == [
        "To be Pushed",
        "Pushed",
        "To be Upgraded",
        "Upgrading",
        "Upgrading",
        "Upgrading",  # success is told by the version alone
        "Succeeded",
    ]
    assert world.task().progress == 100
    assert model.state(batch, world.books.at_rest(batch)) == "Completed"


@pytest.mark.parametrize(
    ("code", "remark"),
    [
        (410, "Push Failed"),
        (416, "Push Failed"),
        (420, "Firmware Verification Failed"),
        (424, "Firmware Verification Failed"),
        (430, "Download Firmware Failed"),
        (437, "Download Firmware Failed"),
        (440, "Firmware Verification Failed"),
        (450, "Firmware Burn Failed"),
        (453, "Firmware Burn Failed"),
        (460, "Firmware Burn Failed"),
        (462, "Firmware Burn Failed"),
        (464, "Firmware Burn Failed"),
        (470, "Task Aborted"),
        (471, "Task Aborted"),
    ],
)
def test_remark_of_each_range_of_codes(code, remark):
    world = World()
    world.push()
    world.reply()
    world.progress(40, "failed", code=code, message="why")
    task = world.task()
    assert (task.status, task.remark, task.code, task.message) == ("Failed", remark, code, "why")
    assert task.progress == 40


@pytest.mark.parametrize(
    ("progress", "remark"),
    [
        (40, "Download Firmware Failed"),
        (96, "Firmware Verification Failed"),
        (98, "Firmware Burn Failed"),
    ],
)
def test_failure_without_code_is_judged_by_its_progress(progress, remark):
    world = World()
    world.push()
    world.reply()
    world.progress(progress, "failed")
    assert world.shows() == ("Failed", remark)


def test_no_reply_in_ten_seconds_is_push_failed():
    world = World()
    world.push()
    world.tick(9.9)
    assert world.shows() == ("Pushed", "")
    world.tick(0.1)
    assert world.shows() == ("Failed", "Push Failed")


def test_refusal_is_push_failed_with_its_code():
    world = World()
    world.push()
    world.reply(413)
    assert world.shows() == ("Failed", "Push Failed")
    assert world.task().code == 413


def test_time_out_runs_from_the_first_progress():
    world = World()
    world.push()
    world.reply()
    world.tick(HOUR)
    assert world.shows() == ("To be Upgraded", "")
    world.progress(0)
    world.tick(500)
    world.progress(50)  # a later one does not prolong it
    world.tick(99)
    assert world.shows() == ("Upgrading", "")
    world.tick(1)
    assert world.shows() == ("Failed", "Firmware Upgrade Time-out")


def test_a_silent_upgrade_waits_until_the_validity_ends():
    world = World(policy="silent")
    world.push(valid_s=24 * HOUR)
    world.reply(202)
    world.tick(24 * HOUR - 1)
    assert world.shows() == ("To be Upgraded", "")
    world.tick(1)
    assert world.shows() == ("Failed", "Firmware Upgrade Time-out")


def test_each_retry_has_a_msg_id_of_its_own():
    world = World(retries=2)
    world.push()
    for _ in range(2):
        world.reply()
        world.progress(10, "failed", code=430)
        assert world.shows() == ("To be Retried", "Download Firmware Failed")
        world.tick(59)
        assert world.shows() == ("To be Retried", "Download Firmware Failed")
        world.tick(1)
        assert world.shows() == ("Pushed", "")
    world.reply()
    world.progress(20, "failed", code=440)
    assert world.shows() == ("Failed", "Firmware Verification Failed")
    assert len({command["msgId"] for command in world.commands}) == 3


def test_no_retry_begins_after_the_validity():
    world = World(retries=5, interval_s=HOUR)
    world.push(valid_s=HOUR)
    world.tick(10)
    assert world.shows() == ("Failed", "Push Failed")


def test_not_pushed_until_the_validity_ends_is_push_failed():
    world = World()  # nothing could be sent: the broker was away
    world.start(valid_s=HOUR)
    world.tick(HOUR)
    assert world.shows() == ("Failed", "Push Failed")
    assert world.commands == []


def test_repeats_of_a_failure_count_once():
    world = World(retries=2)
    world.push()
    world.reply()
    for _ in range(3):
        world.progress(10, "failed", code=430)
    first = world.msg_id
    world.tick(60)
    world.progress(10, "failed", msg_id=first, code=430)
    assert world.shows() == ("Pushed", "")
    world.reply()
    world.progress(10, "failed", msg_id=first, code=430)
    assert world.shows() == ("To be Upgraded", "")
    assert world.task().attempt == 1


def test_a_device_may_go_on_under_the_id_of_an_attempt_before():
    world = World(retries=1, timeout_s=100)
    world.push()
    first = world.msg_id
    world.reply()
    world.progress(10)
    world.tick(100)
    assert world.shows() == ("To be Retried", "Firmware Upgrade Time-out")
    world.tick(60)
    world.reply()  # same version: answered only
    world.progress(60, msg_id=first)
    assert world.shows() == ("Upgrading", "")
    world.progress(60, "failed", msg_id=first, code=430)
    assert world.shows() == ("Failed", "Download Firmware Failed")


@pytest.mark.parametrize("then", ["version", "progress", "reply", "failed", "get", "tick"])
def test_a_failure_is_never_contradicted(then):
    world = World()
    world.push()
    world.reply()
    world.progress(98, "failed", code=460)
    {
        "version": world.version,
        "progress": lambda: world.progress(50),
        "reply": world.reply,
        "failed": lambda: world.progress(5, "failed", code=430),
        "get": world.get,
        "tick": lambda: world.tick(HOUR),
    }[then]()
    assert world.shows() == ("Failed", "Firmware Burn Failed")
    assert world.task().code == 460


@pytest.mark.parametrize("then", ["version", "progress", "failed", "reply"])
def test_a_success_is_never_contradicted(then):
    world = World()
    world.push()
    world.version()
    {
        "version": lambda: world.version("1.0.0"),
        "progress": lambda: world.progress(50),
        "failed": lambda: world.progress(98, "failed", code=461),
        "reply": lambda: world.reply(415),
    }[then]()
    assert world.shows() == ("Succeeded", "")
    assert world.task().progress == 100


LATE = {"status": "failed", "code": 464, "message": "0"}  # source: docs/protocol.md


@pytest.mark.parametrize(
    ("msg_id", "version"),
    [("t1-1-0", "1.1.0"), ("t1-1-0", "9.9.9"), ("other", "1.1.0")],
    ids=["both", "id", "version"],
)
def test_late_failure_takes_a_success_back(msg_id, version):
    world = World(retries=3)
    batch = world.push()
    world.reply()
    world.version()
    world.tick(HOUR)
    world.version("1.0.0")  # it is back in the image before
    assert world.shows() == ("Succeeded", "")
    world.progress(0, msg_id=msg_id, version=version, **LATE)
    task = world.task()
    assert world.shows() == ("Failed", "Firmware Burn Failed")
    assert (task.code, task.message) == (464, "0")
    assert model.state(batch, world.books.at_rest(batch)) == "Completed"


def test_late_failure_is_stored_and_noted_once():
    world = World()
    world.push()
    world.version()
    data = {"firmwareVersion": "1.1.0", "progress": 0, **LATE}
    payload = json.dumps({"msgId": world.msg_id, "version": "1.0", "data": data}).encode()
    changed, notes = [], []
    for _ in range(3):
        effects = world.logic.receive(world.now, "pk", "d1", "progress", payload)
        changed += [e for e in effects if getattr(e, "record", None) is world.task()]
        notes += [e.text for e in effects if getattr(e, "kind", "") == "status"]
    assert len(changed) == 1
    assert notes == ["Failed (Firmware Burn Failed)"]


@pytest.mark.parametrize("then", ["late", "version", "failed", "get", "tick"])
def test_late_failure_is_the_end(then):
    world = World(retries=3)
    world.push()
    world.version()
    world.progress(0, **LATE)
    sent = len(world.commands)
    {
        "late": lambda: world.progress(0, **LATE),
        "version": world.version,
        "failed": lambda: world.progress(98, "failed", code=460),
        "get": world.get,
        "tick": lambda: world.tick(HOUR),
    }[then]()
    assert world.shows() == ("Failed", "Firmware Burn Failed")
    assert world.task().code == 464
    assert len(world.commands) == sent


@pytest.mark.parametrize("code", [None, 460, 461, 463, 465, 470, 453])
def test_only_a_late_failure_takes_a_success_back(code):
    world = World()
    world.push()
    world.version()
    more = {} if code is None else {"code": code}
    world.progress(0, "failed", **more)
    assert world.shows() == ("Succeeded", "")


@pytest.mark.parametrize("status", ["downloading", "succeeded"])
def test_late_code_without_a_failure_means_nothing(status):
    world = World()
    world.push()
    world.version()
    world.progress(100, status, code=464)
    assert world.shows() == ("Succeeded", "")


def test_late_failure_of_another_version_or_device_means_nothing():
    world = World()
    world.start(devices=world.devices)
    world.tick()
    for device in ("d1", "d2"):
        world.say("version", {"firmwareVersion": "1.1.0"}, device=device)
    world.progress(0, msg_id="other", version="1.0.9", **LATE)
    data = {"firmwareVersion": "1.1.0", "progress": 0, **LATE}
    world.say("progress", data, "t1-1-0", device="d2")
    assert world.task().status == "Succeeded"
    assert world.task(device="d2").status == "Failed"


def test_late_failure_counts_for_the_newest_task_alone():
    world = World()
    world.push()
    world.version()
    world.books.enter(Firmware(2, "pk", "g", "1.2.0", "b.bin", 4096, "cd" * 16, 1.0))
    world.push(firmware=2, number=2)
    world.reply()
    world.progress(0, msg_id="t1-1-0", **LATE)
    assert world.shows(1) == ("Succeeded", "")
    assert world.shows(2) == ("To be Upgraded", "")
    world.version("1.2.0")
    world.progress(0, msg_id="t1-1-0", **LATE)
    assert (world.shows(1), world.shows(2)) == (("Succeeded", ""), ("Succeeded", ""))
    world.progress(0, version="1.2.0", **LATE)
    assert world.shows(1) == ("Succeeded", "")
    assert world.shows(2) == ("Failed", "Firmware Burn Failed")


def test_late_failure_before_the_success_was_told_is_one_like_others():
    world = World(retries=1)
    world.push()
    world.reply()
    world.progress(100, "succeeded")
    world.progress(0, **LATE)
    assert world.shows() == ("To be Retried", "Firmware Burn Failed")
    assert world.task().code == 464


def test_another_version_is_no_success():
    world = World()
    world.push()
    world.version("1.0.0")
    world.version("1.1.0.1")
    assert world.shows() == ("Pushed", "")
    assert world.devices[0].version == "1.1.0.1"


def test_a_late_reply_shows_that_the_device_was_there():
    world = World(retries=1)
    world.push()
    world.tick(10)
    assert world.shows() == ("To be Retried", "Push Failed")
    world.reply()
    assert world.shows() == ("To be Upgraded", "")
    world.tick(60)
    assert len(world.commands) == 1


def test_a_refused_command_does_not_stop_what_runs():
    world = World()
    world.push()
    world.progress(10)
    world.reply(413)
    assert world.shows() == ("Upgrading", "")


def test_a_command_delivered_twice_is_answered_twice():
    world = World()
    world.push()
    world.reply()
    world.progress(10)
    world.reply()
    assert world.shows() == ("Upgrading", "")
    assert world.task().progress == 10


def test_a_refusal_is_no_guess_of_the_platform():
    world = World()
    world.push()
    world.reply(415)
    world.progress(10)
    world.reply(200)
    assert world.shows() == ("Failed", "Push Failed")
    assert world.task().code == 415


def test_a_failure_by_another_id_counts_after_the_reply_only():
    world = World()
    world.push()
    world.progress(10, "failed", msg_id="older", code=430)
    assert world.shows() == ("Pushed", "")
    world.reply()
    world.progress(10, "failed", msg_id="older", code=430)
    assert world.shows() == ("Failed", "Download Firmware Failed")


def test_a_retry_begins_at_0_percent():
    world = World(retries=1)
    world.push()
    world.progress(60, "failed", code=430)
    assert world.task().progress == 60
    world.tick(60)
    assert (world.task().status, world.task().progress) == ("Pushed", 0)


# get


def test_get_after_a_time_out_is_the_retry():
    world = World(retries=1)
    world.push()
    world.progress(5)
    world.tick(600)
    world.get()
    assert (world.task().status, world.task().attempt) == ("Pushed", 1)
    world.tick(10)
    assert world.shows() == ("Failed", "Push Failed")
    assert len(world.commands) == 1


def test_get_of_a_version_uploaded_twice_gives_the_latest():
    world = World()
    world.books.enter(Firmware(2, "pk", "g", "1.1.0", "b.bin", 1, "cd" * 16, 2.0))
    assert world.get("1.1.0")["data"]["url"] == "http://host/2/b.bin"


def test_empty_get_brings_what_waits():
    world = World()
    world.push()
    world.tick(10)
    assert world.shows() == ("Failed", "Push Failed")
    answer = world.get(msg_id="g7")
    assert answer["data"] == world.commands[0]["data"]
    assert world.shows() == ("Pushed", "")
    world.reply(msg_id="g7")
    assert world.shows() == ("To be Upgraded", "")
    world.progress(10, "failed", msg_id="g7", code=431)
    assert world.shows() == ("Failed", "Download Firmware Failed")


@pytest.mark.parametrize(
    ("reach", "answered", "status"),
    [
        (lambda w: None, True, "Pushed"),  # To be Pushed
        (lambda w: w.tick(), True, "Pushed"),
        (lambda w: (w.tick(), w.reply()), True, "To be Upgraded"),
        (lambda w: (w.tick(), w.progress(5)), True, "Upgrading"),
        (lambda w: (w.tick(), w.tick(10)), True, "Pushed"),  # To be Retried, nothing heard
        (lambda w: (w.tick(), w.reply(413)), True, "Pushed"),  # To be Retried, refused
        (lambda w: (w.tick(), w.progress(5), w.tick(600)), True, "Pushed"),  # timed out
        (lambda w: (w.tick(), w.progress(5, "failed", code=430)), False, "To be Retried"),
        (lambda w: w.version(), False, "Succeeded"),
    ],
)
def test_empty_get_in_each_status(reach, answered, status):
    world = World(retries=1)
    world.start()
    reach(world)
    answer = world.get()
    assert ("data" in answer) == answered
    assert answer.get("code") == (None if answered else 404)
    assert world.task().status == status


def test_a_command_that_never_arrived_is_no_attempt():
    world = World(retries=1)
    world.push()
    world.tick(10)
    world.get()
    world.tick(10)
    assert world.shows() == ("To be Retried", "Push Failed")
    assert world.task().attempt == 0


def test_empty_get_without_a_task_is_404():
    world = World()
    assert world.get() == {
        "msgId": "g1",
        "code": 404,
        "message": "FirmwareVersion  not existed",
    }


def test_push_failed_does_not_come_back_after_the_validity():
    world = World()
    world.push(valid_s=HOUR)
    world.tick(10)
    world.tick(HOUR)
    assert world.get()["code"] == 404
    assert world.shows() == ("Failed", "Push Failed")


def test_push_failed_does_not_come_back_when_a_later_batch_ran():
    world = World()
    world.push()
    world.tick(10)
    world.push(number=2)
    world.progress(5, "failed", code=450)
    assert world.get()["code"] == 404
    assert world.shows(1) == ("Failed", "Push Failed")


def test_get_of_a_version_is_information_only():
    world = World()
    world.push()
    world.tick(10)
    answer = world.get("1.1.0")
    assert answer["data"] == {
        "firmwareVersion": "1.1.0",
        "url": "http://host/1/a.bin",
        "sign": "ab" * 16,
        "signMethod": "Md5",
    }
    assert world.shows() == ("Failed", "Push Failed")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"version": "1.1.0", "productKey": "pk", "identifier": "d2"}, True),
        ({"version": "1.1.0", "productKey": "pk", "identifier": "d9"}, False),
        ({"version": "1.1.0", "productKey": "other", "identifier": "d2"}, False),
        ({"version": "9.9.9"}, False),
        ({"version": "", "productKey": "pk", "identifier": "d2"}, False),
    ],
)
def test_get_on_behalf_answers_the_asker(asked, found):
    world = World()
    world.push(devices=world.devices)
    answer = world.get(**asked)
    if found:
        assert answer["data"]["firmwareVersion"] == "1.1.0"
    else:
        assert answer["code"] == 404
        assert answer["message"] == f"FirmwareVersion {asked['version']} not existed"
    assert world.task(device="d2").status == "Pushed"


# Batches


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seen": None}, "inactive: it never reported a version"),
        ({"version": "1.1.0"}, "already at 1.1.0"),
    ],
)
def test_devices_that_are_left_out(change, reason):
    world = World()
    for name, value in change.items():
        setattr(world.devices[1], name, value)
    batch, left_out = world.start(devices=world.devices)
    assert left_out == {"d2": reason}
    assert [task.identifier for task in world.books.tasks(batch)] == ["d1"]


def test_device_in_a_running_batch_is_left_out():
    world = World()
    world.push()
    _, left_out = world.start(devices=world.devices, number=2)
    assert left_out == {"d1": "in batch 1"}


def test_device_of_an_aborted_batch_may_take_part_in_another():
    world = World()
    batch = world.push()
    world.reply()
    world.take(world.logic.abort(world.now, batch))
    assert world.task().status == "To be Upgraded"
    _, left_out = world.start(number=2)
    assert left_out == {}


def test_batch_without_devices_is_refused():
    world = World()
    world.push()
    with pytest.raises(PlatformError, match="d1: in batch 1"):
        world.start(number=2)
    assert list(world.books.batches) == [1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("policy", "loud"),
        ("retries", -1),
        ("retries", 6),
        ("timeout_s", 0),
        ("interval_s", 4320 * 60 + 1),
        ("valid_s", 7 * 86400 + 1),
        ("valid_s", float("nan")),
    ],
)
def test_settings_out_of_range(setting, value):
    good = {"policy": "silent", "timeout_s": 1, "retries": 5, "interval_s": 1, "valid_s": 1}
    model.check_batch(**good)
    with pytest.raises(PlatformError):
        model.check_batch(**{**good, setting: value})


@pytest.mark.parametrize(
    ("reach", "at_once", "after"),
    [
        (lambda w: None, "Failed", "Task Aborted"),  # To be Pushed
        (lambda w: (w.tick(), w.progress(5, "failed", code=430)), "Failed", "Task Aborted"),
        (lambda w: w.tick(), "Pushed", "Task Aborted"),
        (lambda w: (w.tick(), w.reply()), "To be Upgraded", "Task Aborted"),
        (lambda w: (w.tick(), w.progress(5)), "Upgrading", "Task Aborted"),
    ],
)
def test_abort_in_each_status(reach, at_once, after):
    world = World(retries=1)
    batch, _ = world.start()
    reach(world)
    world.take(world.logic.abort(world.now, batch))
    assert model.state(batch, world.books.at_rest(batch)) == "Aborted"
    assert world.task().status == at_once
    world.tick(600)
    assert world.shows() == ("Failed", after)


def test_abort_lets_one_that_runs_end_by_its_version():
    world = World()
    batch = world.push()
    world.progress(5)
    world.take(world.logic.abort(world.now, batch))
    assert "data" in world.get()  # its URL may have run out
    world.version()
    assert world.shows() == ("Succeeded", "")


def test_abort_lets_one_that_runs_fail_with_its_own_remark():
    world = World(retries=3)
    batch = world.push()
    world.progress(5)
    world.take(world.logic.abort(world.now, batch))
    world.progress(5, "failed", code=440)
    assert world.shows() == ("Failed", "Firmware Verification Failed")


def test_abort_gives_the_command_to_nobody_new():
    world = World()
    batch = world.push()
    world.take(world.logic.abort(world.now, batch))
    assert world.get()["code"] == 404


def test_abort_is_the_end_of_push_failed():
    world = World()
    batch, _ = world.start(devices=world.devices)
    world.tick()
    world.say("upgrade_reply", {}, "t1-1-0", 200, device="d2")
    world.tick(10)
    assert world.shows() == ("Failed", "Push Failed")
    world.take(world.logic.abort(world.now, batch))
    world.reply()
    assert world.get()["code"] == 404
    assert world.shows() == ("Failed", "Push Failed")


# Messages


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("progress", b"{"),
        ("progress", b"[]"),
        ("progress", b'{"msgId": "1", "data": []}'),
        ("progress", b'{"msgId": "1", "code": "x", "data": {}}'),
        ("progress", b'{"msgId": "1", "data": {"status": "downloading", "progress": 101}}'),
        ("progress", b'{"msgId": "1", "data": {"status": "downloading", "progress": true}}'),
        ("progress", b'{"msgId": "1", "data": {"status": "dancing", "progress": 1}}'),
        ("version", b'{"msgId": "1", "data": {"firmwareVersion": 1}}'),
        ("version", b'{"msgId": "1", "data": {"firmwareVersion": ""}}'),
        ("version", b'{"msgId": "1", "data": {"firmwareVersion": "a b"}}'),
        ("version", b'{"msgId": "1", "data": {"firmwareVersion": "1.\\u00e9"}}'),
        ("upgrade_reply", b'{"msgId": "t1-1-0", "code": "200"}'),
        ("get", b'{"msgId": "1"}'),
        ("get", b'{"msgId": "1", "data": {"firmwareVersion": "", "identifier": 1}}'),
        ("get", b'"' + b"x" * 20000 + b'"'),
        ("upgrade_reply", b"\xff\xfe"),
        ("nonsense", b"{}"),
    ],
)
def test_malformed_messages_change_nothing(name, payload):
    world = World()
    world.push()
    before = (world.shows(), len(world.sent))
    world.take(world.logic.receive(world.now, "pk", "d1", name, payload))
    assert (world.shows(), len(world.sent)) == before
    assert world.devices[0].version == "1.0.0"


def test_stray_spaces_and_numbers_as_the_guidance_prints_them():
    world = World()
    world.push()
    payload = b'{"msgId ": 7, "data ": {"firmwareVersion ": " 1.1.0 "}}'
    world.take(world.logic.receive(world.now, "pk", "d1", "version", payload))
    assert world.shows() == ("Succeeded", "")


def test_messages_of_unknown_devices_are_dropped():
    world = World()
    assert world.logic.receive(world.now, "pk", "d9", "get", b"{}") == []
    assert world.logic.receive(world.now, "other", "d1", "get", b"{}") == []


def test_any_message_makes_a_device_active():
    world = World()
    world.devices[0].seen = None
    world.say("get", {"firmwareVersion": ""})
    assert world.devices[0].seen == world.now


def test_effects_store_each_change_and_note_each_status():
    world = World()
    world.start()
    effects = world.logic.tick(world.now)
    kinds = [type(effect) for effect in effects]
    assert kinds == [logic.Publish, logic.Changed, logic.Note]
    assert effects[1].record is world.task()
    assert (effects[2].batch, effects[2].kind, effects[2].text) == (1, "status", "Pushed")


def test_an_attempt_that_a_device_knows_by_its_get_alone_is_sent_as_a_command():
    world = World(retries=1)
    world.push()
    world.reply()
    world.progress(10, "failed", code=430)
    world.tick(60)  # the retry, which is lost
    before = len(world.commands)
    assert world.get(msg_id="g1")["data"]["sign"] == "ab" * 16
    world.reply(415, msg_id="g1")  # all that the device knows is that this image failed
    assert len(world.commands) == before + 1
    assert world.msg_id == "t1-1-1"
    assert world.shows() == ("Pushed", "")
    world.reply(415)  # to the command itself: then it is refused
    assert world.shows() == ("Failed", "Push Failed")
    assert len(world.commands) == before + 1


def test_an_outcome_that_was_lost_does_not_wait_for_the_time_out():
    world = World()
    world.push()
    world.reply()
    world.progress(10)
    world.get(msg_id="g1")
    world.reply(413, msg_id="g1")  # one that runs is not stopped by a reason
    assert world.shows() == ("Upgrading", "")
    world.reply(415, msg_id="g1")
    assert world.shows() == ("Failed", "Push Failed")
    assert world.task().code == 415


def test_what_failed_before_is_not_sent_again_for_a_batch_that_was_aborted():
    world = World()
    batch = world.push()
    world.reply()
    world.take(world.logic.abort(world.now, batch))
    world.get(msg_id="g1")
    before = len(world.commands)
    world.reply(415, msg_id="g1")
    assert len(world.commands) == before
