"""What is removed, added by the hundred, or gets a new secret: firmware and devices."""

import threading

import pytest

from tests.engine import WAIT_S
from tests.test_platform_server import Player
from tools import servers
from tools.platform import model, rights
from tools.platform.local import LocalPlatform
from tools.platform.model import NotFound, PlatformError

pytest_plugins = "tests.engine_fixtures"


def upgraded(stage, name="d1"):
    """The device has had firmware 1.1.0, by a batch. Returns its number."""
    batch = stage.engine.upgrade(stage.firmware, [name])["batch"]
    stage.say(name, "upgrade_reply", {}, stage.command(name), 200)
    stage.say(name, "version", {"firmwareVersion": "1.1.0"})
    stage.engine.wait(batch, WAIT_S)
    return batch


# Firmware


def test_removed_firmware_is_gone_and_its_history_stays(stage):
    stage.join("d1")
    batch = upgraded(stage)
    folder = stage.folder / "firmware" / str(stage.firmware)
    assert folder.exists()
    stage.registry.remove_firmware("pk-1.1.0")
    assert not folder.exists()
    assert stage.registry.firmware() == []
    for way in ("pk-1.1.0", stage.firmware):
        with pytest.raises(NotFound, match="no firmware"):
            stage.registry.remove_firmware(way)
        with pytest.raises(NotFound, match="no firmware"):
            stage.engine.upgrade(way)
    about = stage.engine.batch(batch)
    assert (about["firmware"], about["version"]) == ("pk-1.1.0 (removed, 1)", "1.1.0")
    assert stage.statuses(batch) == {"d1": "Succeeded"}
    again = stage.registry.upload("pk", stage.source, "1.1.0")  # its name is free
    assert again != stage.firmware


def test_a_long_name_makes_room_for_its_mark(stage):
    number = stage.registry.upload("pk", stage.source, "1.2.0", "x" * model.NAME_MAX)
    stage.registry.remove_firmware(number)
    with stage.store.begin() as tx:
        name = tx.get(model.Firmware, number).name
    assert name == "x" * (model.NAME_MAX - len(" (removed, 2)")) + " (removed, 2)"


def test_firmware_of_a_batch_in_progress_stays(stage):
    stage.join("d1")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    with pytest.raises(PlatformError, match=f"batch {batch} runs with firmware pk-1.1.0: abort"):
        stage.registry.remove_firmware(stage.firmware)
    assert stage.registry.firmware() and (stage.folder / "firmware" / "1" / "a.bin").exists()


def test_removed_firmware_makes_room(stage, monkeypatch):
    monkeypatch.setattr(model, "FILES_MAX", 1)
    with pytest.raises(PlatformError, match="remove one"):
        stage.registry.upload("pk", stage.source, "1.2.0")
    stage.registry.remove_firmware(stage.firmware)
    stage.registry.upload("pk", stage.source, "1.2.0")


def test_nobody_gets_removed_firmware(stage):
    stage.join("d1")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    stage.say("d1", "upgrade_reply", {"message": "no"}, stage.command("d1"), 410)
    stage.engine.wait(batch, WAIT_S)
    with stage.store.begin() as tx:  # as after a push that nobody answered: `get` would bring it
        task = tx.get(model.Task, batch, "pk", "d1")
        task.remark, task.code = model.PUSH_FAILED, None
        tx.update([task])
    stage.registry.remove_firmware(stage.firmware)
    with pytest.raises(PlatformError, match=f"the firmware of batch {batch} was removed"):
        stage.engine.retry(batch, "d1")
    for version in ("", "1.1.0"):
        stage.say("d1", "get", {"firmwareVersion": version}, "g" + version)
    stage.until(lambda: len([1 for _, kind, _ in stage.link.sent if kind == "get_reply"]) == 2)
    answers = [message for _, kind, message in stage.link.sent if kind == "get_reply"]
    assert [answer["msgId"] for answer in answers] == ["g", "g1.1.0"]
    assert all("url" not in answer.get("data", {}) for answer in answers)


# Devices


def test_many_devices_at_once(stage):
    stage.registry.add_device("pk", "d0")
    secret = stage.registry.devices(secrets=True)[0]["secret"]
    made = stage.registry.add_devices("pk", ["d1", "d0", "d2"])
    assert [row["identifier"] for row in made] == ["d1", "d0", "d2"]
    assert made[1]["secret"] == secret
    assert stage.registry.add_devices("pk", ["d1", "d0", "d2"]) == made
    assert len({row["secret"] for row in made}) == 3
    assert len(stage.registry.devices()) == 3


def test_of_many_devices_one_is_not_possible(stage):
    stage.registry.add_product("other")
    stage.registry.add_device("other", "d9")
    for names, words in (
        (["d1", "d9"], "device d9 exists already"),
        (["d1", "d/2"], "identifier 'd/2'"),
    ):
        with pytest.raises(PlatformError, match=words):
            stage.registry.add_devices("pk", names)
    with pytest.raises(NotFound, match="no product nothing"):
        stage.registry.add_devices("nothing", ["d1"])
    assert [row["identifier"] for row in stage.registry.devices()] == ["d9"]


def test_a_new_secret_takes_the_place_of_the_old_one(stage):
    old = stage.registry.add_device("pk", "d1")
    made = stage.registry.renew_secret("d1")
    assert made == {"product": "pk", "identifier": "d1", "secret": made["secret"]}
    assert not stage.registry.may_log_in("d1", "pk&d1", old)
    assert stage.registry.may_log_in("d1", "pk&d1", made["secret"])
    assert stage.shown_out == ["d1"]
    with pytest.raises(NotFound, match="no device d2"):
        stage.registry.renew_secret("d2")


def test_a_removed_device_leaves_nothing(stage):
    stage.join("d1", "d2")
    secret = stage.registry.devices(secrets=True)[0]["secret"]
    batches = upgraded(stage), upgraded(stage, "d2")
    stage.registry.remove_device("d1")
    assert stage.shown_out == ["d1"]
    assert not stage.registry.may_log_in("d1", "pk&d1", secret)
    assert [stage.statuses(batch) for batch in batches] == [{}, {"d2": "Succeeded"}]
    assert stage.engine.batch(batches[0])["state"] == "Completed"
    for ask in (stage.registry.device, stage.registry.remove_device, stage.engine.events):
        with pytest.raises(NotFound, match="no device d1"):
            ask("d1")
    stage.say("d1", "version", {"firmwareVersion": "1.1.0"})  # nobody hears it
    stage.until(lambda: all(stage.acknowledged))
    stage.registry.add_device("pk", "d1")
    assert stage.registry.device("d1")["seen"] is None
    assert stage.engine.events("d1") == []


def test_a_failure_is_not_removed_from_a_batch_in_progress(stage):
    stage.join("d1", "d2")
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    stage.say("d1", "upgrade_reply", {"message": "no"}, stage.command("d1"), 410)
    stage.until(lambda: stage.statuses(batch)["d1"] == "Failed")
    with pytest.raises(PlatformError, match=f"batch {batch} runs with device d1: abort it first"):
        stage.registry.remove_device("d1")
    stage.command("d2")
    stage.engine.abort(batch)  # d2 may still run: that keeps nobody
    stage.registry.remove_device("d1")
    assert list(stage.statuses(batch)) == ["d2"]


def test_devices_are_removed_as_soon_as_they_can_be(stage):
    # While their batch is being worked at: no deadlock, and nothing of them is left.
    names = sorted(f"d{number}" for number in range(20))
    stage.join(*names)
    batch = stage.engine.upgrade(stage.firmware)["batch"]
    tries, failed = [], []

    def remove():
        for name in names[::2]:
            while True:
                try:
                    tries.append(name)
                    stage.registry.remove_device(name)
                    break
                except PlatformError as error:
                    if "abort it first" not in str(error):
                        failed.append(error)
                        return

    thread = threading.Thread(target=remove)
    thread.start()
    for name in names:
        stage.say(name, "upgrade_reply", {}, "x", 200)
        stage.say(name, "version", {"firmwareVersion": "1.1.0"})
    thread.join(WAIT_S)
    assert not thread.is_alive() and failed == []
    assert len(tries) > len(names[::2])
    assert stage.statuses(batch) == dict.fromkeys(names[1::2], "Succeeded")


# Those that are connected


@pytest.fixture
def fleet(tmp_path):
    """A platform with device d1 of product pk, and its secret."""
    with LocalPlatform(tmp_path / "platform") as platform:
        platform.add_product("pk")
        yield platform, platform.add_device("pk", "d1")


@pytest.mark.parametrize("action", ["renew_secret", "remove_device"])
def test_who_is_connected_is_shown_out(fleet, action):
    platform, secret = fleet
    player = Player(platform.mqtt_port, "d1", secret)
    try:
        assert player.ready() == "subscribed"
        getattr(platform.platform.registry, action)("d1")
        assert player.ready() == "Not authorized"  # it came again by itself
    finally:
        player.end()


def test_mosquitto_shows_out_whom_its_new_files_do_not_name(tmp_path):
    login, port = ("platform", "its-own"), servers.free_port()
    rights.write(tmp_path, [("pk", "d1", "old")], login)
    lines = ["allow_anonymous false", f"password_file {tmp_path / rights.PASSWORDS}"]
    lines.append(f"acl_file {tmp_path / rights.TOPICS}")
    with servers.mosquitto(tmp_path, *lines, port=port):
        player = Player(port, "d1", "old")
        try:
            assert player.ready() == "subscribed"
            rights.write(tmp_path, [("pk", "d1", "new")], login)
            servers.reload(tmp_path)
            assert player.ready() == "Not authorized"
        finally:
            player.end()
