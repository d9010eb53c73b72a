"""The engine over both data bases."""

import dataclasses
import functools
import json
import queue
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.engine import REPLY_S, WAIT_S, Stage
from tools.platform import engine as engine_module
from tools.platform import migrations, registry, tables
from tools.platform import store as store_module
from tools.platform.engine import Engine
from tools.platform.model import Batch, Device, NotFound, PlatformError, Product, Task
from tools.platform.store import Store

pytest_plugins = "tests.engine_fixtures"

# The data base


def test_migrations_make_the_tables_that_the_code_knows(stage):
    with stage.store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": False})
        different = compare_metadata(context, tables.meta)
        assert context.get_current_revision() == migrations.head()
    assert different == []


def test_a_data_base_of_a_newer_release_is_refused(stage, tmp_path):
    url = str(stage.store._engine.url.render_as_string(hide_password=False))
    with stage.store._engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    stage.close()
    with pytest.raises(PlatformError, match="a release that this one does not know"):
        Store(tmp_path, None if url.startswith("sqlite") else url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "looks like postgresql"),
        ("oracle://x", "looks like postgresql"),
        ("postgresql+psycopg://ota:secret@127.0.0.1:1/x", "127.0.0.1"),
    ],
)
def test_a_data_base_that_is_none(tmp_path, url, words):
    with pytest.raises(PlatformError, match=words) as caught:
        Store(tmp_path, url)
    assert "secret" not in str(caught.value)


def test_a_transaction_that_raises_leaves_nothing(stage):
    stage.join("d1")
    with pytest.raises(ZeroDivisionError), stage.store.begin() as tx:
        device = tx.get(tables_of("Device"), "pk", "d1")
        device.version = "9"
        tx.update([device])
        raise ZeroDivisionError
    assert stage.registry.device("d1")["version"] == "1.0.0"


def tables_of(name):
    return next(kind for kind in tables.OF if kind.__name__ == name)


def test_settings_stay(stage):
    with stage.store.begin() as tx:
        assert tx.setting("key", "first") == "first"
    with stage.store.begin() as tx:
        assert tx.setting("key", "second") == "first"


def test_of_all_logs_the_newest_lines_stay(stage):
    stage.join("d1")
    for number in range(20):
        stage.say("d1", "version", {"firmwareVersion": f"1.{number}"})
    stage.until(lambda: stage.registry.device("d1")["version"] == "1.19")
    with stage.store.begin() as tx:
        assert tx.forget_events(5) == 16
    assert [line["text"] for line in stage.engine.events("d1")] == [
        f"1.{number}" for number in range(15, 20)
    ]
    last = stage.engine.events("d1", 2)
    assert [line["text"] for line in last] == ["1.18", "1.19"]
    before = stage.engine.events("d1", 2, before=last[0]["id"])
    assert [line["text"] for line in before] == ["1.16", "1.17"]


def test_nobody_pushes_the_lines_of_others_out(stage, monkeypatch):
    for name, value in (("_OWN_MAX", 20), ("_OWN_LOOK", 10)):
        monkeypatch.setattr(engine_module, name, value)
    stage.join("quiet", "loud")
    for number in range(100):
        stage.say("loud", "version", {"firmwareVersion": f"1.{number}"})
    stage.until(lambda: all(stage.acknowledged))
    texts = [line["text"] for line in stage.engine.events("loud")]
    assert texts == [f"1.{number}" for number in range(100 - len(texts), 100)]
    assert 20 <= len(texts) < 20 + 10 + engine_module._GROUP
    assert len(texts) < 100
    assert [line["text"] for line in stage.engine.events("quiet")] == ["1.0.0"]
    monkeypatch.setattr(engine_module, "_WRITERS_MAX", 0)
    stage.say("loud", "version", {"firmwareVersion": "2"})
    stage.until(lambda: stage.acknowledged[-1])
    assert len(stage.engine._written) <= 1


# Messages


def test_many_messages_of_many_devices(stage):
    names = [f"d{number:03}" for number in range(60)]
    stage.join(*names)
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    stage.until(lambda: len(stage.link.commands()) == len(names))
    for name in names:
        stage.say(name, "upgrade_reply", {}, stage.command(name), 200)
    for progress in range(0, 100, 20):
        for name in names:
            data = {"firmwareVersion": "1.1.0", "status": "downloading", "progress": progress}
            stage.say(name, "progress", data, stage.command(name))
    for name in names:
        stage.say(name, "version", {"firmwareVersion": "1.1.0"})
    rows = stage.engine.wait(batch, WAIT_S)
    assert {(row.status, row.progress, row.version) for row in rows} == {
        ("Succeeded", 100, "1.1.0")
    }
    assert [row.device for row in rows] == names
    stage.until(lambda: all(stage.acknowledged))
    said = [line["text"] for line in stage.engine.events("d007") if line["kind"] == "status"]
    assert said == ["Pushed", "To be Upgraded", "Upgrading", "Succeeded"]
    summary = stage.engine.batch(batch)
    assert (summary["state"], summary["devices"]) == ("Completed", 60)
    assert summary["statuses"] == {"Succeeded": 60}


def test_rows_come_in_pages(stage):
    stage.join("d1", "d2", "d3", "d4")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    stage.command("d4")
    stage.say("d2", "version", {"firmwareVersion": "1.1.0"})
    stage.until(lambda: stage.statuses(batch)["d2"] == "Succeeded")

    def names(**query):
        return [row.device for row in stage.engine.status(batch, **query)]

    assert names(limit=3) == ["d1", "d2", "d3"]
    assert names(after="d3") == ["d4"]
    assert names(status="Succeeded") == ["d2"]
    assert names(devices=["d4", "d1"]) == ["d1", "d4"]
    assert [row["identifier"] for row in stage.registry.devices(after="d1", limit=2)] == [
        "d2",
        "d3",
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"data": 7}',
        b'{"msgId": "a\\u0000b", "data": {"firmwareVersion": ""}}',
        b'{"msgId": "1", "code": 99999999999999999999999, "data": {}}',
        b'{"msgId": "1", "data": {"firmwareVersion": "1\\u0000"}}',
        b'{"msgId": "1", "data": {"firmwareVersion": "\\ud800"}}',
        b'{"msgId": "1", "data": {"firmwareVersion": "1", "productKey": "\\u0000"}}',
        b'{"msgId": "1", "data": {"firmwareVersion": "' + b"x" * 5000 + b'"}}',
        b'{"msgId": "1", "data": {"status": "failed", "progress": 1, "firmwareVersion": "1.1.0",'
        b' "code": 99999999999999999999999, "message": "\\u0000\\ud800<b>"}}',
        b'{"msgId": "1", "data": {"status": "failed", "progress": 1, "firmwareVersion": "1.1.0",'
        b' "code": 430, "message": "\\u0000\\ud800<b>' + b"y" * 5000 + b'"}}',
        b"[" * 9000,
    ],
)
def test_what_a_device_may_say_harms_nothing(stage, payload):
    stage.join("d1", "d2")
    stage.engine.upgrade(stage.firmware, ["d1"])
    stage.command("d1")
    for name in ("version", "progress", "get", "upgrade_reply", "nonsense"):
        stage.hear("d1", name, payload)
    stage.say("d2", "version", {"firmwareVersion": "7"})
    stage.until(lambda: stage.registry.device("d2")["version"] == "7")
    stage.until(lambda: all(stage.acknowledged))
    assert stage.engine.status(1)[0].message in ("", "??<b>" + "y" * 195)
    assert all(len(line["text"]) <= 200 for line in stage.engine.events("d1"))


def test_messages_of_nobody_change_nothing(stage):
    stage.join("d1")
    stage.say("d9", "version", {"firmwareVersion": "1"})
    stage.engine.received("/sys/pk/d1/ota/firmware/version", b"{}", True, lambda: None)
    stage.engine.received("/other", b"{}", False, lambda: None)
    stage.until(lambda: all(stage.acknowledged))
    assert len(stage.engine.events("d1")) == 1


def test_while_the_data_base_is_away_nothing_is_acknowledged_or_lost(stage, monkeypatch):
    stage.join("d1")
    begin, away = stage.store.begin, threading.Event()

    def fails():
        away.set()
        raise sa.exc.OperationalError("x", {}, Exception("away"))

    monkeypatch.setattr(stage.store, "begin", fails)
    away.clear()
    stage.say("d1", "version", {"firmwareVersion": "2"})
    assert away.wait(WAIT_S)
    time.sleep(0.1)
    assert stage.acknowledged[-1] is False
    monkeypatch.setattr(stage.store, "begin", begin)
    stage.until(lambda: stage.acknowledged[-1])
    assert stage.registry.device("d1")["version"] == "2"


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.ProgrammingError("x", {}, Exception("no such column")),  # of a newer release
        sa.exc.InternalError("x", {}, Exception("x")),
        sa.exc.TimeoutError("no connection is free"),
        MemoryError(),
    ],
)
def test_what_may_pass_is_waited_for(stage, monkeypatch, error):
    stage.join("d1")
    begin, tries = stage.store.begin, []

    def fails():
        tries.append(1)
        if len(tries) < 3 and threading.current_thread().name == "engine":
            raise error
        return begin()

    monkeypatch.setattr(stage.store, "begin", fails)
    stage.say("d1", "version", {"firmwareVersion": "2"})
    stage.until(lambda: stage.acknowledged[-1])
    assert stage.registry.device("d1")["version"] == "2"


def test_each_message_is_handled_and_acknowledged_once(stage, monkeypatch):
    # Also when one breaks its group, and then the data base goes.
    stage.join("d1", "d2")
    receive, done = engine_module.Upgrades.receive, []
    plan = [ZeroDivisionError(), sa.exc.OperationalError("x", {}, Exception("away"))]

    def breaks(self, now, product, identifier, name, payload):
        if identifier == "d1" and plan:
            raise plan.pop(0)
        return receive(self, now, product, identifier, name, payload)

    monkeypatch.setattr(engine_module.Upgrades, "receive", breaks)
    said = [("d2", "2"), ("d2", "3"), ("d1", "4"), ("d2", "5")]
    with stage.store.begin() as tx:
        ledger(tx, "d1", "d2")  # the first one waits for that; the others are one group
        for name, version in said:
            data = {"msgId": "1", "data": {"firmwareVersion": version}}
            topic = f"/sys/pk/{name}/ota/firmware/version"
            acknowledge = functools.partial(done.append, version)
            stage.engine.received(topic, json.dumps(data).encode(), False, acknowledge)
    stage.until(lambda: len(done) >= len(said))
    assert plan == []
    assert done == ["2", "3", "4", "5"]
    lines = [line["text"] for line in stage.engine.events("d2") if line["kind"] == "version"]
    assert lines == ["1.0.0", "2", "3", "5"]


def stuck(stage, monkeypatch):
    """The data base is away, and there is room for two messages."""

    def fails():
        raise sa.exc.OperationalError("x", {}, Exception("away"))

    monkeypatch.setattr(stage.engine, "_inbox", queue.Queue(2))
    monkeypatch.setattr(stage.store, "begin", fails)
    stage.engine._wake()


def test_what_finds_no_room_is_sent_again(stage, monkeypatch):
    stage.join("d1")
    begin = stage.store.begin
    monkeypatch.setattr(engine_module, "_INBOX_S", 0.2)
    stuck(stage, monkeypatch)
    for version in range(8):
        stage.say("d1", "version", {"firmwareVersion": f"{version}"})
    assert stage.link.renewed >= 1
    monkeypatch.setattr(stage.store, "begin", begin)
    stage.until(lambda: stage.acknowledged[-8])
    assert not all(stage.acknowledged)  # those the broker has, and sends them again


def test_a_full_inbox_does_not_hold_up_the_end(stage, monkeypatch):
    stage.join("d1")
    begin = stage.store.begin
    stuck(stage, monkeypatch)

    def talk():
        for _ in range(8):
            stage.say("d1", "version", {"firmwareVersion": "2"})

    thread = threading.Thread(target=talk)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()  # it waits for room
    stage.engine.stop()
    thread.join(WAIT_S / 4)
    assert not thread.is_alive()
    assert not any(stage.acknowledged[-8:])
    monkeypatch.setattr(stage.store, "begin", begin)


def test_a_message_that_breaks_a_rule_of_the_data_base_stops_nobody(stage, monkeypatch):
    stage.join("d1", "d2")
    receive = engine_module.Upgrades.receive

    def breaks(self, now, product, identifier, name, payload):
        if identifier == "d1":
            raise sa.exc.IntegrityError("x", {}, Exception("unique"))
        return receive(self, now, product, identifier, name, payload)

    monkeypatch.setattr(engine_module.Upgrades, "receive", breaks)
    for name in ("d1", "d2"):
        stage.say(name, "version", {"firmwareVersion": "2"})
    stage.until(lambda: all(stage.acknowledged))
    assert stage.registry.device("d2")["version"] == "2"


def test_commands_wait_for_the_broker(stage):
    stage.join("d1")
    stage.link.waiting = 1000
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    time.sleep(0.3)
    assert stage.statuses(batch)["d1"] == "To be Pushed"
    assert stage.link.commands() == []
    stage.link.waiting = 0
    stage.command("d1")


def test_a_message_that_breaks_the_engine_harms_no_other(stage, monkeypatch):
    stage.join("d1", "d2")
    receive = engine_module.Upgrades.receive

    def breaks(self, now, product, identifier, name, payload):
        if identifier == "d1":
            raise ZeroDivisionError
        return receive(self, now, product, identifier, name, payload)

    monkeypatch.setattr(engine_module.Upgrades, "receive", breaks)
    for name in ("d1", "d2", "d1"):
        stage.say(name, "version", {"firmwareVersion": "2"})
    stage.until(lambda: all(stage.acknowledged))
    assert stage.registry.device("d2")["version"] == "2"
    assert stage.registry.device("d1")["version"] == "1.0.0"


def test_listening_again_gives_time_for_what_was_said_meanwhile(stage):
    stage.join("d1")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    stage.command("d1")
    stage.until(lambda: stage.statuses(batch)["d1"] == "Pushed")
    stage.engine.link_changed(False)
    with stage.store.begin() as tx:
        (task,) = tx.find(Task)
        task.due = time.time() - 100
        tx.update([task])
    time.sleep(0.3)
    assert stage.statuses(batch)["d1"] == "Pushed"  # nobody is late while nothing can be heard
    stage.engine.link_changed(True)
    time.sleep(0.3)
    assert stage.statuses(batch)["d1"] == "Pushed"
    with stage.store.begin() as tx:
        (task,) = tx.find(Task)
    assert task.due > time.time() + REPLY_S - 5


# What people ask for


def test_abort_goes_through_all_devices(stage, monkeypatch):
    monkeypatch.setattr(engine_module, "_CHUNK", 2)
    names = [f"d{number}" for number in range(7)]
    stage.join(*names)
    batch = stage.engine.upgrade(stage.firmware, retries=1)["batch"]
    for name in names:
        msg_id = stage.command(name)
        data = {"firmwareVersion": "1.1.0", "status": "failed", "progress": 1}
        if name != "d3":
            stage.say(name, "progress", data, msg_id, 430)
        else:
            stage.say(name, "upgrade_reply", {}, msg_id, 200)
    stage.until(lambda: list(stage.statuses(batch).values()).count("To be Retried") == 6)
    stage.engine.abort(batch)
    assert stage.statuses(batch) == dict.fromkeys(names, "Failed") | {"d3": "To be Upgraded"}
    assert {row.remark for row in stage.engine.status(batch)} == {"Task Aborted", ""}
    with pytest.raises(PlatformError, match="Aborted"):
        stage.engine.abort(batch)


def cut(*_):
    raise MemoryError


def test_an_abort_that_was_cut_goes_on(stage, monkeypatch):
    names = ["d1", "d2", "d3", "d4"]
    stage.join(*names)
    stage.engine.link_changed(False)
    batch = stage.engine.upgrade(stage.firmware, shares="50,100")["batch"]
    monkeypatch.setattr(Engine, "_stop_devices", cut)
    with pytest.raises(MemoryError):
        stage.engine.abort(batch)
    assert set(stage.statuses(batch).values()) == {"To be Pushed"}
    stage.engine.link_changed(True)
    rows = stage.engine.wait(batch, WAIT_S)
    assert [(row.status, row.remark) for row in rows] == [("Failed", "Task Aborted")] * 4
    assert stage.link.commands() == []


def test_a_roll_out_whose_stop_was_cut_stops(stage, monkeypatch):
    stage.join(*[f"d{number}" for number in range(4)])
    monkeypatch.setattr(Engine, "_stop_devices", cut)
    batch = stage.engine.upgrade(stage.firmware, shares="25,100", failures=0)["batch"]
    stage.until(stage.link.commands)
    ((first, _),) = stage.link.commands()
    fail(stage, first)
    rows = stage.engine.wait(batch, WAIT_S)
    remarks = {row.device: row.remark for row in rows}
    assert remarks.pop(first) == "Firmware Burn Failed"
    assert list(remarks.values()) == ["Task Aborted"] * 3


def test_a_batch_that_ended_cannot_be_aborted(stage):
    stage.join("d1")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    stage.command("d1")
    stage.say("d1", "version", {"firmwareVersion": "1.1.0"})
    stage.engine.wait(batch, WAIT_S)
    with pytest.raises(PlatformError, match="Completed"):
        stage.engine.abort(batch)
    with pytest.raises(NotFound):
        stage.engine.abort(batch + 1)


def fail(stage, device, count=1, code=450):
    data = {"firmwareVersion": "1.1.0", "status": "failed", "progress": 97, "code": code}
    stage.say(device, "progress", data, stage.command(device, count))


def test_retry_of_one_device(stage):
    stage.join("d1", "d2")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    with pytest.raises(PlatformError, match="did not fail"):
        stage.engine.retry(batch, "d1")
    fail(stage, "d1")
    stage.until(lambda: stage.statuses(batch)["d1"] == "Failed")
    stage.engine.retry(batch, "d1")
    assert stage.command("d1", 2) != stage.command("d1", 1)
    fail(stage, "d1", 2)
    stage.until(lambda: stage.statuses(batch)["d1"] == "Failed")
    assert stage.engine.status(batch)[0].retries == 1
    stage.engine.retry(batch, "d1")
    stage.command("d1", 3)
    stage.say("d1", "version", {"firmwareVersion": "1.1.0"})
    stage.until(lambda: stage.statuses(batch)["d1"] == "Succeeded")
    stage.registry.add_device("pk", "d3")
    for device, words in (("d3", "not in batch"), ("d9", "no device"), ("d1", "did not fail")):
        with pytest.raises(PlatformError, match=words):
            stage.engine.retry(batch, device)


def test_no_retry_in_a_batch_that_is_over(stage):
    stage.join("d1", "d2")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    fail(stage, "d1")
    stage.until(lambda: stage.statuses(batch)["d1"] == "Failed")
    stage.engine.abort(batch)
    with pytest.raises(PlatformError, match="is over"):
        stage.engine.retry(batch, "d1")


def test_no_retry_when_the_device_is_in_a_later_batch(stage):
    stage.join("d1", "d2")
    first = stage.engine.upgrade(stage.firmware)["batch"]
    fail(stage, "d1")
    stage.until(lambda: stage.statuses(first)["d1"] == "Failed")
    second = stage.engine.upgrade(stage.firmware, ["d1"])["batch"]
    with pytest.raises(PlatformError, match=f"later batch, {second}"):
        stage.engine.retry(first, "d1")
    fail(stage, "d1", 2)
    stage.until(lambda: stage.statuses(second)["d1"] == "Failed")
    with pytest.raises(PlatformError, match="later batch"):
        stage.engine.retry(first, "d1")


# Gradual roll-out


def open_devices(stage, batch):
    return {name for name, status in stage.statuses(batch).items() if status != "To be Pushed"}


def test_a_roll_out_goes_on_by_itself(stage):
    names = {f"d{number}" for number in range(10)}
    stage.join(*sorted(names))
    begun = stage.engine.upgrade(stage.firmware, shares="10,50,100", failures=20)
    batch, seen = begun["batch"], set()
    for size in (1, 5, 10):
        stage.until(lambda size=size: len(open_devices(stage, batch)) == size)
        time.sleep(0.2)
        fresh = open_devices(stage, batch) - seen
        assert len(fresh | seen) == size
        for name in sorted(fresh):
            stage.command(name)
            stage.say(name, "version", {"firmwareVersion": "1.1.0"})
        seen |= fresh
    stage.engine.wait(batch, WAIT_S)
    assert stage.engine.batch(batch)["statuses"] == {"Succeeded": 10}
    assert stage.engine.batch(batch)["wave"] == 2


def test_a_roll_out_stops_when_too_many_fail(stage):
    stage.join(*[f"d{number}" for number in range(10)])
    batch = stage.engine.upgrade(stage.firmware, shares="40,100", failures=25)["batch"]
    stage.until(lambda: len(open_devices(stage, batch)) == 4)
    first, second, third, fourth = sorted(open_devices(stage, batch))
    fail(stage, first)
    stage.until(lambda: stage.statuses(batch)[first] == "Failed")
    time.sleep(0.2)
    assert stage.engine.batch(batch)["state"] == "In Progress"  # 25 % is not above 25 %
    stage.say(third, "upgrade_reply", {}, stage.command(third), 200)
    fail(stage, second)
    stage.until(lambda: stage.engine.batch(batch)["state"] == "Aborted")
    assert stage.engine.batch(batch)["why"] == "2 of the first 4 devices failed"
    stage.until(lambda: stage.engine.batch(batch)["statuses"].get("Failed") == 8)
    assert {name for name, _ in stage.link.commands()} == {first, second, third, fourth}
    stage.say(third, "version", {"firmwareVersion": "1.1.0"})  # one that runs ends by itself
    stage.until(lambda: stage.statuses(batch)[third] == "Succeeded")


def test_devices_that_are_away_do_not_stop_a_roll_out(stage):
    stage.join("d1", "d2")
    for engine in stage.engines:
        engine._reply_s = 0.1
    batch = stage.engine.upgrade(stage.firmware, shares="50,100", failures=0)["batch"]
    rows = stage.engine.wait(batch, WAIT_S)
    assert [(row.status, row.remark) for row in rows] == [("Failed", "Push Failed")] * 2
    assert stage.engine.batch(batch)["state"] == "Completed"
    assert len(stage.link.commands()) == 2


def test_a_device_of_a_later_share_is_not_upgraded_by_asking(stage):
    stage.join("d1", "d2")
    batch = stage.engine.upgrade(stage.firmware, shares="50,100")["batch"]
    stage.until(lambda: len(open_devices(stage, batch)) == 1)
    (later,) = {"d1", "d2"} - open_devices(stage, batch)
    stage.say(later, "get", {"firmwareVersion": ""}, "g1")
    stage.until(lambda: [m for d, kind, m in stage.link.sent if kind == "get_reply"])
    (answer,) = [m for d, kind, m in stage.link.sent if kind == "get_reply"]
    assert answer["code"] == 404
    assert stage.statuses(batch)[later] == "To be Pushed"


# Workers


def test_two_workers_share_the_work_and_lose_nothing(tmp_path, postgres):
    stage = Stage(tmp_path, postgres())
    other = stage.add_engine()
    try:
        names = [f"d{number:02}" for number in range(40)]
        stage.join(*names)
        batch = stage.engine.upgrade(stage.firmware, retries=1, interval_s=0.1)["batch"]
        both = [stage.engine, other]

        def commands():
            return [item for engine in both for item in engine.link.commands()]

        stage.until(lambda: len(commands()) == len(names))
        ids = {name: message["msgId"] for name, message in commands()}
        assert len(ids) == len(names)  # each was sent by one of them, once
        for progress in range(0, 60, 10):
            for number, name in enumerate(names):
                data = {"firmwareVersion": "1.1.0", "status": "downloading", "progress": progress}
                engine = both[(number + progress // 10) % 2]
                stage.say(name, "progress", data, ids[name], engine=engine)
        stage.until(lambda: all(stage.acknowledged))
        for number, name in enumerate(names):
            data = {"firmwareVersion": "1.1.0"}
            if number % 4 == 0:
                failed = {**data, "status": "failed", "progress": 50, "code": 430}
                stage.say(name, "progress", failed, ids[name], engine=both[number % 3 % 2])
            else:
                stage.say(name, "version", data, engine=both[number % 2])
        stage.until(lambda: len(commands()) == len(names) + 10)
        for name in names[::4]:
            stage.say(name, "version", {"firmwareVersion": "1.1.0"}, engine=other)
        rows = stage.engine.wait(batch, WAIT_S)
        assert {row.status for row in rows} == {"Succeeded"}
        assert [row.retries for row in rows] == [int(n % 4 == 0) for n in range(len(names))]
        stage.until(lambda: all(stage.acknowledged))
    finally:
        stage.close()


def test_a_device_with_a_long_history(stage, monkeypatch):
    monkeypatch.setattr("tools.platform.store._HISTORY", 2)
    stage.join("d1", "d2")
    batches = []
    for count in range(1, 6):
        batches.append(stage.engine.upgrade(stage.firmware)["batch"])
        fail(stage, "d1", count)
        stage.until(lambda: stage.statuses(batches[-1])["d1"] == "Failed")
        stage.command("d2", count)
        if count < 5:
            stage.engine.abort(batches[-1])
            stage.say("d2", "version", {"firmwareVersion": "1.1.0"})
            stage.until(lambda: stage.statuses(batches[-1])["d2"] == "Succeeded")
            stage.say("d2", "version", {"firmwareVersion": "1.0.0"})
            stage.until(lambda: stage.registry.device("d2")["version"] == "1.0.0")
    with pytest.raises(PlatformError, match=f"later batch, {batches[-1]}"):
        stage.engine.retry(batches[0], "d1")
    stage.say("d2", "version", {"firmwareVersion": "1.1.0"})
    stage.until(lambda: stage.statuses(batches[-1])["d2"] == "Succeeded")
    assert [stage.statuses(batch)["d1"] for batch in batches] == ["Failed"] * 5


@pytest.fixture
def shared(tmp_path, postgres):
    """A stage over PostgreSQL whose engine stands still: device d1 is To be Pushed."""
    stage = Stage(tmp_path, postgres())
    stage.join("d1", "d2")
    stage.engine.link_changed(False)
    stage.engine.upgrade(stage.firmware, ["d1"])
    yield stage
    stage.close()


def ledger(tx, *names):
    return tx.ledger(lambda *_: "http://h/", [("pk", name) for name in names])


def meanwhile(stage, action):
    """Another worker's transaction, in a thread. Returns (thread, what it found)."""
    found = []

    def run():
        with stage.store.begin() as tx:
            found.append(action(tx))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.mark.parametrize("held", ["device", "task"])
def test_a_device_that_one_worker_is_at_waits_for_no_other(shared, held):
    with shared.store.begin() as tx:
        if held == "device":
            record = ledger(tx, "d1").devices["pk", "d1"]
            record.version = "9"
        else:
            (record,) = tx.due(time.time(), 10)
            record.progress = 9
        tx.update([record])
        thread, found = meanwhile(shared, lambda other: ledger(other, "d1", "d2"))
        thread.join(0.5)
        assert not found  # it waits
        other, seen = meanwhile(shared, lambda third: ledger(third, "d2"))
        other.join(WAIT_S if held == "device" else 0.5)
        assert seen or held == "task"  # and nobody else does
    thread.join(WAIT_S)
    (books,) = found
    (task,) = books.tasks_of(books.devices["pk", "d1"])
    assert (books.devices["pk", "d1"].version, task.progress) in (("9", 0), ("1.0.0", 9))


def test_while_a_batch_begins_its_product_stays_as_it_is(shared):
    with shared.store.begin() as tx:
        registry.find_to_publish(tx, shared.firmware)
        thread, found = meanwhile(shared, lambda other: other.get(Product, "pk", lock=True))
        thread.join(0.5)
        assert not found
    thread.join(WAIT_S)
    assert found


def test_tasks_of_many_batches_are_locked_in_one_order(shared):
    # Task (1, d1) is there; now one of an earlier device in a later batch.
    with shared.store.begin() as tx:
        device = tx.get(Device, "pk", "d2")
        tx.insert([Device("pk", "a1", "s", "a1", seen=1.0)])
        first, batch = tx.get(Task, 1, "pk", "d1"), tx.get(Batch, 1)
        batch.token = "other"
        tx.insert_numbered(batch)
        later = dataclasses.replace(first, batch=batch.id, identifier="a1", status="Pushed")
        first.status = "Pushed"
        tx.update([first, device])
        tx.insert([later])
    with shared.store.begin() as tx:
        tx.get(Task, later.batch, "pk", "a1", lock=True)
        thread, _ = meanwhile(shared, lambda other: other.grant(time.time() + 1000))
        thread.join(0.5)
        assert thread.is_alive()
        tx.get(Task, 1, "pk", "d1", lock=True)  # a deadlock, if that one had it already
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_nobody_waits_for_a_stuck_worker_for_ever(tmp_path, postgres, monkeypatch):
    monkeypatch.setitem(store_module._PATIENCE, "lock_timeout", "200ms")
    stage = Stage(tmp_path, postgres())
    stage.join("d1", "d2")
    with stage.store.begin() as tx:
        ledger(tx, "d1")
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            stage.engine.upgrade(stage.firmware)
        stage.say("d1", "version", {"firmwareVersion": "2"})
        time.sleep(0.5)
        assert stage.acknowledged[-1] is False
    stage.until(lambda: stage.acknowledged[-1])
    assert stage.registry.device("d1")["version"] == "2"
    stage.close()


def test_who_stands_still_in_a_transaction_is_shown_out(tmp_path, postgres, monkeypatch):
    monkeypatch.setitem(store_module._PATIENCE, "idle_in_transaction_session_timeout", "300ms")
    stage = Stage(tmp_path, postgres())
    stage.join("d1")
    with pytest.raises(sa.exc.DBAPIError, match="idle"), stage.store.begin() as tx:
        (device,) = ledger(tx, "d1").devices.values()
        time.sleep(1)
        device.version = "9"
        tx.update([device])
    assert stage.registry.device("d1")["version"] == "1.0.0"
    stage.close()


def test_what_is_due_is_taken_by_one_worker(shared):
    with shared.store.begin() as tx:
        assert len(tx.due(time.time(), 10)) == 1
        thread, found = meanwhile(shared, lambda other: other.due(time.time(), 10))
        thread.join(WAIT_S)
        assert found == [[]]  # at once, and without it


def test_two_batches_at_once_do_not_take_the_same_device(tmp_path, postgres):
    stage = Stage(tmp_path, postgres())
    try:
        stage.join("d1", "d2", "d3")
        began, errors = [], []
        start = threading.Barrier(4)

        def begin():
            start.wait()
            try:
                began.append(stage.engine.upgrade(stage.firmware)["batch"])
            except PlatformError as error:
                errors.append(str(error))

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert len(began) == 1
        assert len(errors) == 3
        assert all("in batch" in error for error in errors)
    finally:
        stage.close()
