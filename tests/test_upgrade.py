"""Whole upgrades over the real platform and the simulated ESP32: what goes well, and policies."""

import json

import pytest

from tests.bench import LAMP, PATIENCE, app, in_flash, until
from tools.device.layout import GENERATIONS
from tools.toolchain import text_of

pytest_plugins = "tests.bench_fixtures"

# The application says when a silent upgrade may begin: when the file `go` is there.
ON_SILENT = """
def on_silent(command):
    import os
    try:
        os.stat("go")
    except OSError:
        print("later", command.version)
        return False
    print("now", command.version)
    return True
"""


def succeeded(version: str) -> list[tuple]:
    return [("Succeeded", "", None, version)]


def once_each(texts: list[str]) -> list[str]:
    """In order; what is sent at QoS 1 may come twice."""
    return list(dict.fromkeys(texts))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_upgrades_go_both_ways_between_the_slots_and_down_again(bench, images, generation):
    device = bench.device(images("1.0.0"), generation=generation)
    slots = ("ota_1", "ota_0", "ota_1", "ota_0")
    for version, slot in zip(("1.1.0", "1.2.0", "1.1.1", "1.0.0"), slots, strict=True):
        batch = bench.offer(images(version), version)
        assert bench.result(batch) == succeeded(version)
        assert device.running == slot
        assert in_flash(device, slot, images(version)) == images(version).stat().st_size
    assert [label for label, _ in device.boots] == ["ota_0", *slots]
    # A command that comes while the device asks what it missed is answered twice, taken once.
    assert set(bench.heard("upgrade_reply")) == {"200"}
    assert len(bench.platform.access_log) == 4


def test_statuses_come_in_the_order_of_the_protocol(bench, images):
    device = bench.device(images("1.0.0"))
    assert bench.result(bench.offer(images("1.1.0"), "1.1.0")) == succeeded("1.1.0")
    bench.hear("progress", "succeeded 100")
    said = once_each(bench.heard("progress"))
    assert said[0] == "downloading 0"
    assert said[-4:] == ["verifying 96", "burning 97", "restarting 98", "succeeded 100"]
    assert bench.heard("status") == ["Pushed", "To be Upgraded", "Upgrading", "Succeeded"]
    # It is told once, also over a restart.
    bench.hear("get", "", after=1)
    told, gets = (len(bench.heard(kind)) for kind in ("progress", "get"))
    device.reset()
    bench.hear("get", "", after=gets)
    assert len(bench.heard("progress")) == told


def test_progress_is_told_by_the_settings_and_never_falls(make_bench, images):
    bench = make_bench(throttle=100_000)
    main = app("progress_percent=10, progress_s=0")
    bench.device(images("1.0.0", app=main))
    assert bench.result(bench.offer(images("1.1.0"), "1.1.0")) == succeeded("1.1.0")
    told = [int(text.split()[1]) for text in bench.heard("progress") if text[0] == "d"]
    assert len(told) >= 5
    assert all(later - earlier >= 10 for earlier, later in zip(told, told[1:], strict=False))
    assert told[-1] <= 95


def test_silent_upgrade_begins_when_the_application_says_so(bench, images):
    agent = text_of("ota/agent.py", ("_ASK_MS = const(60000)", "_ASK_MS = const(100)"))
    main = app("on_silent=on_silent", before=ON_SILENT)
    device = bench.device(images("1.0.0", app=main, extra_modules={"ota/agent": agent}))
    batch = bench.offer(images("1.1.0"), "1.1.0", policy="silent")
    for _ in range(3):
        device.wait("^later 1.1.0$", PATIENCE)
    assert bench.heard("upgrade_reply") == ["202"]
    assert bench.platform.access_log == []
    device.put("go", "")
    assert bench.result(batch) == succeeded("1.1.0")


def test_silent_upgrade_without_a_word_begins_at_the_next_start(bench, images):
    device = bench.device(images("1.0.0"))
    batch = bench.offer(images("1.1.0"), "1.1.0", policy="silent")
    bench.hear("upgrade_reply", "202")
    # Asking again, for a lost connection, starts nothing.
    gets = len(bench.heard("get"))
    bench.wire.cut()
    bench.hear("get", "", after=gets)
    bench.hear("upgrade_reply", "202", after=1)
    assert bench.platform.access_log == []
    device.reset()
    assert bench.result(batch) == succeeded("1.1.0")


def test_same_command_delivered_twice_starts_one_upgrade_and_is_answered_twice(make_bench, images):
    bench = make_bench(throttle=60_000)
    image = images("1.1.0")
    bench.device(images("1.0.0"))
    url = bench.platform.url_of(bench.platform.upload("pk1", image, "1.1.0"))
    command = bench.command("one", image, "1.1.0", url)
    bench.say(command)
    bench.hear("upgrade_reply", "200")
    bench.say(command)
    bench.hear("upgrade_reply", "200", after=1)
    bench.release()
    bench.hear("version", "1.1.0")
    bench.hear("progress", "succeeded 100")
    assert bench.heard("upgrade_reply") == ["200", "200"]
    assert len(bench.platform.access_log) == 1


def test_command_for_the_running_version_is_a_success_without_download(bench, images, files):
    device = bench.device(images("1.0.0"))
    bench.say(bench.command("one", images("1.0.0"), "1.0.0", files.url + "/a.bin"))
    bench.hear("progress", "succeeded 100")
    assert bench.heard("upgrade_reply") == ["200"]
    assert files.requests == []
    assert len(device.boots) == 1


def test_version_is_told_at_every_start(bench, images):
    device = bench.device(images("1.0.0"))
    for count in range(1, 3):
        device.reset()
        bench.hear("version", "1.0.0", after=count)
    device.power_cut()
    device.start()
    bench.hear("version", "1.0.0", after=3)


@pytest.mark.parametrize("reply_s", [1, 60])
def test_command_sent_while_the_device_is_off_is_fetched_when_it_comes(
    make_bench, images, reply_s
):
    bench = make_bench(reply_s=reply_s)
    device = bench.device(images("1.0.0"))
    device.stop()
    batch = bench.offer(images("1.1.0"), "1.1.0")
    status, remark = ("Failed", "Push Failed") if reply_s == 1 else ("Pushed", "")
    until(lambda: bench.platform.status(batch)[0].status == status)
    assert bench.platform.status(batch)[0].remark == remark
    device.start()
    bench.hear("version", "1.1.0")
    assert bench.result(batch) == succeeded("1.1.0")


def test_platform_restarts_in_the_middle_of_a_download(make_bench, images):
    bench = make_bench(throttle=60_000)
    device = bench.device(images("1.0.0"))
    batch = bench.offer(images("1.1.0"), "1.1.0")
    until(lambda: in_flash(device, "ota_1", images("1.1.0")) > 65536)
    bench.restart_platform()
    bench.release()
    assert bench.result(batch) == succeeded("1.1.0")
    assert len(device.boots) == 2
    assert bench.platform.access_log[0].start > 0


def test_wifi_goes_away_and_comes_back(make_bench, images):
    bench = make_bench(throttle=60_000)
    device = bench.device(images("1.0.0"))
    batch = bench.offer(images("1.1.0"), "1.1.0")
    until(lambda: in_flash(device, "ota_1", images("1.1.0")) > 65536)
    wires = len(bench.wire.connections)
    device.link(False)
    until(lambda: len(bench.wire.connections) > wires)
    bench.release()
    device.link(True)
    assert bench.result(batch) == succeeded("1.1.0")
    assert len(device.boots) == 2
    assert [access.start > 0 for access in bench.platform.access_log] == [False, True]


def test_second_command_during_a_download_waits_for_nothing(make_bench, images):
    bench = make_bench(throttle=60_000)
    bench.device(images("1.0.0"))
    batch = bench.offer(images("1.1.0"), "1.1.0")
    bench.hear("progress", "downloading 0")
    command = json.loads(bench.command("other", images("1.2.0"), "1.2.0", "http://127.0.0.1/a"))
    bench.say(json.dumps(command))
    bench.hear("upgrade_reply", "413")
    command["data"]["firmwareVersion"] = "1.1.0"
    bench.say(json.dumps(command))
    bench.hear("upgrade_reply", "200", after=2)
    bench.release()
    assert bench.result(batch) == succeeded("1.1.0")
    assert len(bench.platform.access_log) == 1


def test_devices_of_a_batch_upgrade_side_by_side(bench, images):
    names = (LAMP, "pump")
    for name in names:
        bench.device(images("1.0.0"), name, generation="6.1" if name == "pump" else "5.5")
    assert bench.result(bench.offer(images("1.1.0"), "1.1.0", names)) == 2 * succeeded("1.1.0")
    assert [device.running for device in bench.devices] == ["ota_1", "ota_1"]


def test_device_that_cannot_log_in_says_what_to_look_at(bench, images):
    hasty = app("", ("> 15000", "> 500"), ('settings["DEVICE_SECRET"]', '"wrong"'))
    device = bench.device(images("1.0.0", app=hasty), seen=False)
    # 5: the broker refuses who is not authorized, MQTT 3.1.1, 3.2.2.3.
    device.wait(rf"main.py: no connection to 127.0.0.1 {bench.wire.port} 5")
