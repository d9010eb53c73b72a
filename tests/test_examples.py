"""The examples run as they are, each as main.py of a simulated device, and do what they say."""

import re
import time

import pytest

from tests.bench import LAMP, PATIENCE, PRODUCT
from tools.toolchain import ROOT

pytest_plugins = "tests.bench_fixtures"
NAMES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def example(name):
    return (ROOT / "examples" / f"{name}.py").read_text()


def test_all_are_here():
    assert NAMES == ["gateway", "minimal", "sensor", "window"]


@pytest.mark.parametrize("name", NAMES)
def test_is_upgraded(bench, name):
    app = example(name)
    device = bench.device(bench.images("1.0.0", app=app))
    device.wait("^version 1.0.0", PATIENCE)
    batch = bench.offer(bench.images("1.1.0", app=app), "1.1.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]
    assert device.counters["violations"] == 0


def test_sensor_goes_on_while_it_is_upgraded(bench):
    app = example("sensor").replace("PERIOD_MS = 1000", "PERIOD_MS = 50")
    bench.device(bench.images("1.0.0", app=app))
    # The broker lets the platform alone hear all, so that is who listens.
    topic, heard = f"/sys/{PRODUCT}/{LAMP}/temperature", []
    client = bench.platform.platform._link._client
    client.message_callback_add(topic, lambda *_: heard.append(time.monotonic()))
    client.subscribe(topic, 0)
    bench.platform.platform.files.throttle = 100_000
    batch = bench.offer(bench.images("1.1.0", app=app), "1.1.0")
    bench.hear("progress", "downloading .*")
    begun = time.monotonic()
    bench.hear("progress", "verifying .*")
    ended = time.monotonic()
    assert len([at for at in heard if begun < at < ended]) >= 3
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]


def test_the_least_says_why_it_is_not_connected(bench):
    app = example("minimal").replace("password=DEVICE_SECRET", 'password="wrong"')
    device = bench.device(bench.images("1.0.0", app=app), seen=False)
    device.wait(r"^no connection: MQTTException\(5,?\)", PATIENCE)


def test_a_loop_of_ones_own(bench):
    page = (ROOT / "README.md").read_text()
    (app,) = (
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "user/set" in text
    )
    app = app.replace('lamp["on"] = msg', 'print("heard", msg)\n    lamp["on"] = msg')
    device = bench.device(bench.images("1.0.0", app=app))
    bench.platform.publish(f"/sys/{PRODUCT}/{LAMP}/user/set", b"on")
    device.wait("^heard b'on'", PATIENCE)
    batch = bench.offer(bench.images("1.1.0", app=app), "1.1.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]


def test_an_mqtt_client_of_ones_own(bench):
    page = (ROOT / "docs/application.md").read_text()
    app = next(
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "TOPIC" in text
    )
    device = bench.device(bench.images("1.0.0", app=app))
    bench.wire.cut()
    bench.hear("get", "", after=1)  # it is back, and asks what it missed
    batch = bench.offer(bench.images("1.1.0", app=app), "1.1.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]
    assert device.running == "ota_1"


def test_window_is_waited_for(bench):
    app = example("window")
    hour = time.gmtime().tm_hour
    closed = ((hour + 3) % 24, (hour + 4) % 24)
    device = bench.device(bench.images("1.0.0", app=app), boot={"WINDOW": closed})
    batch = bench.offer(bench.images("1.1.0", app=app), "1.1.0", policy="silent")
    bench.hear("upgrade_reply", "202")
    device.stop()
    text = (device.fs / "boot.py").read_text()
    assert f"WINDOW = {closed}" in text
    (row,) = bench.platform.status(batch)
    assert row.status == "To be Upgraded"
    device.put("boot.py", text.replace(f"WINDOW = {closed}", "WINDOW = (0, 24)"))
    device.start()
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]


def test_gateway_asks_on_behalf_of_others(bench, tmp_path):
    bench.platform.add_product("valve")
    bench.platform.add_device("valve", "valve-1")
    source = tmp_path / "valve.bin"
    source.write_bytes(b"firmware of a valve")
    bench.platform.upload("valve", source, "2.0.0")
    wanted = (("valve", "valve-9", "2.0.0"), ("valve", "valve-1", "2.0.0"))
    device = bench.device(bench.images("1.0.0", app=example("gateway")), boot={"DEVICES": wanted})
    device.wait("^firmware for valve-1 2.0.0 [0-9a-f]{32}", PATIENCE)
    device.wait("^no firmware for valve-9 404", PATIENCE)
