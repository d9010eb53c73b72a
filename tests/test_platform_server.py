"""The whole platform over real MQTT and HTTP, with paho clients that play the devices."""

import asyncio
import hashlib
import json
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import httpx
import paho.mqtt.client as mqtt
import pytest

from tools.platform import link as link_module
from tools.platform import server as server_module
from tools.platform.broker import Broker
from tools.platform.client import API_FILE
from tools.platform.local import LocalPlatform
from tools.platform.model import PlatformError

CONTENT = b"\xe9" + b"firmware" * 500
WAIT_S = 20
HASTY_S = 1.5  # for a reply, instead of 10 s, where one is missing


class Player:
    """
    A device as an MQTT client: what it is sent lies in `inbox`, as (topic's last part, QoS,
    message).
    """

    def __init__(self, port, identifier, secret, product="pk", client_id=None):
        self.prefix = f"/sys/{product}/{identifier}/ota/firmware/"
        self.inbox = queue.Queue()
        self.reason = queue.Queue()  # of each connection
        self.client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id or identifier,
            reconnect_on_failure=True,
        )
        client.reconnect_delay_set(0.1, 0.5)
        client.username_pw_set(f"{product}&{identifier}", secret)
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self.reason.put("subscribed")
        client.on_message = self._on_message
        client.connect("127.0.0.1", port)
        client.loop_start()

    def _on_connect(self, client, userdata, flags, reason, properties):
        if reason.is_failure:
            self.reason.put(str(reason))
        else:
            client.subscribe([(self.prefix + "upgrade", 1), (self.prefix + "get_reply", 1)])

    def _on_message(self, client, userdata, message):
        name = message.topic.removeprefix(self.prefix)
        self.inbox.put((name, message.qos, json.loads(message.payload)))

    def ready(self):
        """Returns how the connection went."""
        return self.reason.get(timeout=WAIT_S)

    def take(self, name):
        """The next message, which must be of this name."""
        got, qos, message = self.inbox.get(timeout=WAIT_S)
        assert (got, qos) == (name, 1)
        return message

    def say(self, name, data, msg_id="1", code=None, qos=1):
        message = {"msgId": msg_id, "version": "1.0", "data": data}
        if code is not None:
            message["code"] = code
        sent = self.client.publish(self.prefix + name, json.dumps(message), qos)
        sent.wait_for_publish(WAIT_S)

    def version(self, version):
        self.say("version", {"firmwareVersion": version})

    def progress(self, msg_id, progress, status="downloading", **more):
        data = {"firmwareVersion": "1.1.0", "status": status, "progress": progress, **more}
        self.say("progress", data, msg_id, qos=0)

    def get(self, version="", msg_id="g1", **more):
        self.say("get", {"firmwareVersion": version, **more}, msg_id)
        return self.take("get_reply")

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


class Stage:
    """
    A platform with a product and firmware 1.1.0, devices that join, all of which ends with the
    test.
    """

    def __init__(self, folder):
        self.folder, self.players, self.platform = folder, [], None
        self.secrets = {}

    def open(self, **options):
        self.platform = LocalPlatform(self.folder, **options)
        self.platform.start()
        return self.platform

    def furnish(self):
        self.platform.add_product("pk")
        source = self.folder / "a.bin"
        source.write_bytes(CONTENT)
        return self.platform.upload("pk", source, "1.1.0")

    def join(self, identifier, version="1.0.0"):
        self.secrets[identifier] = self.platform.add_device("pk", identifier)
        player = Player(self.platform.mqtt_port, identifier, self.secrets[identifier])
        self.players.append(player)
        assert player.ready() == "subscribed"
        player.version(version)
        self.platform.wait_seen([identifier], WAIT_S)
        return player

    def close(self):
        if self.platform:
            self.platform.stop()
            self.platform = None

    def until(self, batch, *statuses):
        """Waits until the batch's devices show these statuses."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            shown = tuple(row.status for row in self.platform.status(batch))
            if shown == statuses:
                return
            time.sleep(0.02)
        raise AssertionError(f"{shown}, not {statuses}")


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    for player in stage.players:
        player.end()
    stage.close()


def test_a_whole_upgrade(stage):
    platform = stage.open()
    firmware = stage.furnish()
    player = stage.join("d1")
    batch = platform.upgrade(firmware, ["d1"], policy="silent")
    command = player.take("upgrade")
    url = command["data"]["url"]
    assert url.startswith(f"http://127.0.0.1:{platform.http_port}/firmware/1/a.bin?device=d1&")
    assert command["data"] == {
        "policy": "silent",
        "size": len(CONTENT),
        "firmwareVersion": "1.1.0",
        "url": url,
        "sign": hashlib.md5(CONTENT).hexdigest(),
        "signMethod": "Md5",
    }
    player.say("upgrade_reply", {}, command["msgId"], 202)
    stage.until(batch, "To be Upgraded")
    with urllib.request.urlopen(url, timeout=WAIT_S) as response:
        assert response.read() == CONTENT
    player.progress(command["msgId"], 40)
    stage.until(batch, "Upgrading")
    player.progress(command["msgId"], 100, "succeeded")
    player.version("1.1.0")
    rows = platform.wait(batch, WAIT_S)
    assert [(row.device, row.status, row.progress, row.version) for row in rows] == [
        ("d1", "Succeeded", 100, "1.1.0")
    ]
    assert platform.state(batch) == "Completed"
    said = [line["text"] for line in platform.events("d1") if line["kind"] == "status"]
    assert said == ["Pushed", "To be Upgraded", "Upgrading", "Succeeded"]
    assert [access.path for access in platform.access_log] == ["/firmware/1/a.bin"]


@pytest.mark.parametrize(
    ("identifier", "secret", "client_id", "words"),
    [
        ("d1", "wrong", None, "DEVICE_SECRET is wrong"),
        ("d1", "", None, "DEVICE_SECRET is wrong"),
        ("d1", None, "d2", "client id"),  # another's client id would throw that one out
        ("d9", "secret", None, "no such device"),
        ("platform", "secret", None, "no such device"),
    ],
)
def test_login_is_checked(stage, identifier, secret, client_id, words, caplog):
    platform = stage.open()
    stage.furnish()
    known = platform.add_device("pk", "d1")
    password = known if secret is None else secret
    player = Player(platform.mqtt_port, identifier, password, client_id=client_id)
    stage.players.append(player)
    for _ in range(2):  # it comes again; whoever looks is told once
        assert player.ready() == "Not authorized"
    assert caplog.text.count(f"MQTT login of 'pk&{identifier}' is refused: ") == 1
    assert words in caplog.text


def test_what_is_told_of_refused_logins_has_a_bound(stage, monkeypatch, caplog):
    monkeypatch.setattr(server_module, "_REFUSED_MAX", 3)
    platform = stage.open().platform
    for number in range(10):
        assert not platform._may_log_in("x", f"pk&{number}" + "x" * 5000, "")
        assert len(platform._refused) <= 3
    assert caplog.text.count("is refused") == 10
    assert max(map(len, caplog.text.splitlines())) < 400


def test_no_reply_then_get_brings_it(stage):
    platform = stage.open(reply_s=HASTY_S)
    firmware = stage.furnish()
    player = stage.join("d1")
    batch = platform.upgrade(firmware, ["d1"])
    command = player.take("upgrade")
    rows = platform.wait(batch, WAIT_S)
    assert [(row.status, row.remark) for row in rows] == [("Failed", "Push Failed")]
    answer = player.get(msg_id="g7")
    for data in (answer["data"], command["data"]):
        assert "ends=" in data.pop("url")  # later than the first one's
    assert (answer["msgId"], answer["data"]) == ("g7", command["data"])
    player.say("upgrade_reply", {}, "g7", 200)
    stage.until(batch, "To be Upgraded")
    assert platform.state(batch) == "In Progress"


def test_each_retry_is_a_command_of_its_own(stage):
    platform = stage.open()
    firmware = stage.furnish()
    player = stage.join("d1")
    batch = platform.upgrade(firmware, ["d1"], retries=2, interval_s=0.1)
    seen = []
    for code in (430, 440, 450):
        command = player.take("upgrade")
        seen.append(command["msgId"])
        player.say("upgrade_reply", {}, command["msgId"], 200)
        player.progress(command["msgId"], 10, "failed", code=code, message="why")
    (row,) = platform.wait(batch, WAIT_S)
    assert (row.status, row.remark, row.code) == ("Failed", "Firmware Burn Failed", 450)
    assert row.message == "why"
    assert len(set(seen)) == 3


def test_get_of_versions(stage):
    platform = stage.open()
    stage.furnish()
    player = stage.join("d1")
    platform.add_device("pk", "d2")
    assert player.get() == {"msgId": "g1", "code": 404, "message": "FirmwareVersion  not existed"}
    answer = player.get("9.9.9", "g2")
    assert answer == {"msgId": "g2", "code": 404, "message": "FirmwareVersion 9.9.9 not existed"}
    answer = player.get("1.1.0", "g3", productKey="pk", identifier="d2")
    assert sorted(answer["data"]) == ["firmwareVersion", "sign", "signMethod", "url"]


def test_devices_that_are_away_or_done_are_left_out(stage):
    platform = stage.open()
    firmware = stage.furnish()
    stage.join("d1")
    stage.join("d2", "1.1.0")
    platform.add_device("pk", "d3")
    begun = platform.platform.engine.upgrade(firmware)
    assert begun["left_out"] == {
        "d2": "already at 1.1.0",
        "d3": "inactive: it never reported a version",
    }
    assert [row.device for row in platform.status(begun["batch"])] == ["d1"]
    with pytest.raises(PlatformError, match="d1: in batch 1"):
        platform.upgrade(firmware)


def test_abort(stage):
    platform = stage.open(reply_s=HASTY_S)
    firmware = stage.furnish()
    runs, waits = stage.join("d1"), stage.join("d2")
    batch = platform.upgrade(firmware, retries=1, interval_s=60)
    command = runs.take("upgrade")
    waits.take("upgrade")
    runs.progress(command["msgId"], 5)
    stage.until(batch, "Upgrading", "To be Retried")
    platform.abort(batch)
    rows = platform.status(batch)
    assert [(row.status, row.remark) for row in rows] == [
        ("Upgrading", ""),
        ("Failed", "Task Aborted"),
    ]
    assert platform.state(batch) == "Aborted"
    runs.version("1.1.0")
    assert platform.wait(batch, WAIT_S)[0].status == "Succeeded"
    assert platform.state(batch) == "Aborted"


def test_restart_of_the_platform_in_the_middle(stage):
    platform = stage.open()
    firmware = stage.furnish()
    player = stage.join("d1")
    platform.add_device("pk", "d2")
    batch = platform.upgrade(firmware, ["d1"], retries=1)
    command = player.take("upgrade")
    player.say("upgrade_reply", {}, command["msgId"], 200)
    player.progress(command["msgId"], 30)
    stage.until(batch, "Upgrading")
    before = platform.status(batch), platform.devices(), platform.events("d1")
    port = platform.mqtt_port
    stage.close()
    platform = stage.open(mqtt_port=port, public_url="http://elsewhere:1/")
    assert (platform.status(batch), platform.devices(), platform.events("d1")) == before
    assert player.ready() == "subscribed"  # it connects again by itself, with its old secret
    answer = player.get()  # the URL is a new one, the firmware is not
    assert answer["data"]["url"].startswith("http://elsewhere:1/firmware/1/a.bin?")
    assert answer["data"]["sign"] == command["data"]["sign"]
    stage.until(batch, "Upgrading")
    player.progress(command["msgId"], 60)
    player.version("1.1.0")
    assert platform.wait(batch, WAIT_S)[0].status == "Succeeded"


def test_one_platform_on_a_folder(stage):
    stage.open()
    with pytest.raises(PlatformError, match="another platform"):
        LocalPlatform(stage.folder).start()
    assert (stage.folder / API_FILE).exists()


def test_an_address_of_ipv6(stage):
    platform = stage.open(host="::1")
    firmware = stage.furnish()
    url = platform.url_of(firmware)
    assert url.startswith(f"http://[::1]:{platform.http_port}/firmware/")
    assert urllib.request.urlopen(url, timeout=10).read() == CONTENT


def test_a_port_that_is_taken(stage, tmp_path):
    platform = stage.open()
    for port in ("mqtt_port", "http_port"):
        taken = {port: getattr(platform, port)}
        with pytest.raises(PlatformError, match="cannot start: .* name another port"):
            LocalPlatform(tmp_path / port, **taken).start()


def test_a_message_too_long_costs_the_sender_its_connection(stage):
    stage.open()
    stage.furnish()
    player = stage.join("d1")
    player.client.publish(player.prefix + "version", b"x" * 30_000)
    assert player.ready() == "subscribed"  # thrown out, back again
    player.version("1.0.1")
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and stage.platform.devices()[0]["version"] != "1.0.1":
        time.sleep(0.02)
    assert stage.platform.devices()[0]["version"] == "1.0.1"


# A broker outside


class OutsideBroker:
    """
    A broker in a thread of its own, that lets anybody in, and can be away for a while. Attribute:
    open, False = nobody may subscribe or publish.
    """

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port, self.open = 0, True

    def start(self):
        login, rights, keeper = lambda *_: True, lambda *_: self.open, ""
        self.broker = Broker("127.0.0.1", self.port, login, rights, keeper)
        self.do(self.broker.start())
        self.port = self.broker.port

    def stop(self):
        self.do(self.broker.stop())

    def do(self, coroutine):
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def end(self):
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_S)


@pytest.fixture
def outside():
    broker = OutsideBroker()
    broker.start()
    yield broker
    broker.end()


def health(platform):
    answer = httpx.get(f"http://127.0.0.1:{platform.http_port}/api/health")
    return answer.status_code, answer.json()


def test_a_broker_outside_that_goes_and_comes(outside, stage):
    platform = stage.open(broker=f"mqtt://me:secret@127.0.0.1:{outside.port}", reply_s=HASTY_S)
    assert platform.mqtt_port == outside.port
    engine = platform.platform.engine
    engine.until(lambda: engine.connected, WAIT_S)  # the platform starts without a broker, too
    firmware = stage.furnish()
    player = stage.join("d1")
    outside.stop()
    deadline = time.monotonic() + WAIT_S
    while engine.connected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert health(platform) == (503, {"broker": False, "waiting": 0})
    batch = platform.upgrade(firmware)
    time.sleep(2 * HASTY_S)  # nobody is late while nothing can be heard
    assert platform.status(batch)[0].status == "To be Pushed"
    outside.start()
    assert player.ready() == "subscribed"
    # Who of the two is back first, nobody knows; a device asks for what it missed.
    player.say("get", {"firmwareVersion": ""}, "g1")
    stage.until(batch, "Pushed")
    assert health(platform)[0] == 200


def test_a_broker_that_refuses_the_platform_its_topics(outside, stage, caplog):
    outside.open = False
    platform = stage.open(broker=f"mqtt://me:secret@127.0.0.1:{outside.port}")
    engine = platform.platform.engine
    with pytest.raises(TimeoutError):
        engine.until(lambda: engine.connected, 2)
    assert caplog.text.count("refuses the platform its topics") == 1
    outside.open = True
    engine.until(lambda: engine.connected, WAIT_S)


def test_what_waits_for_the_broker_is_counted_and_has_an_end(outside, monkeypatch, caplog):
    monkeypatch.setattr(link_module, "_QUEUE_MAX", 3)
    address = link_module.Address("127.0.0.1", outside.port, "me", "secret")
    nothing = lambda *_: None  # noqa: E731
    link = link_module.Link(address, "p", False, False, nothing, nothing)
    for _ in range(5):
        link.publish("a/b", "{}")
    assert link.waiting == 3
    assert caplog.text.count("is lost") == 2
    link.start()
    deadline = time.monotonic() + WAIT_S
    while link.waiting and time.monotonic() < deadline:
        time.sleep(0.02)
    assert link.waiting == 0
    link.stop()


def test_what_came_on_another_connection_is_not_acknowledged():
    # By then its packet id is that of another message.
    heard, acknowledged = [], []
    address = link_module.Address("127.0.0.1", 1)
    link = link_module.Link(
        address, "p", True, False, lambda *message: heard.append(message[3]), print
    )
    client = SimpleNamespace(
        ack=lambda mid, qos: acknowledged.append(mid), subscribe=lambda topics: None
    )
    reason = SimpleNamespace(is_failure=False)
    for mid in (1, 2):
        link._on_connect(client, None, None, reason, None)
        message = SimpleNamespace(topic="t", payload=b"", retain=False, qos=1, mid=mid)
        link._on_message(client, None, message)
    for done in heard:
        done()
    assert acknowledged == [2]


@pytest.mark.parametrize("url", ["http://host", "mqtt://", "mqtt://host:x", "mqtt://h/path", "h"])
def test_a_broker_address_that_is_none(tmp_path, url):
    with pytest.raises(PlatformError, match="broker"):
        LocalPlatform(tmp_path, broker=url)


# The registry


def test_what_the_registry_refuses(stage, tmp_path):
    platform = stage.open()
    firmware = stage.furnish()
    platform.add_product("other")
    platform.add_device("pk", "d1")
    good, text = tmp_path / "a.bin", tmp_path / "a.txt"
    text.write_text("x")
    empty = tmp_path / "empty.bin"
    empty.touch()
    for call, sentence in (
        (lambda: platform.add_product("pk"), "exists already"),
        (lambda: platform.add_product("a/b"), "product key"),
        (lambda: platform.add_device("none", "d2"), "no product none"),
        (lambda: platform.add_device("pk", "d1"), "exists already"),
        (lambda: platform.add_device("other", "d1"), "exists already"),
        (lambda: platform.add_device("pk", "+"), "identifier"),
        (lambda: platform.add_device("pk", ".."), "identifier"),
        (lambda: platform.add_product("."), "product key"),
        (lambda: platform.upload("none", good, "1"), "no product none"),
        (lambda: platform.upload("pk", good, "1.1.0"), "another name"),
        (lambda: platform.upload("pk", good, "1 2", "f"), "version"),
        (lambda: platform.upload("pk", good, "1.2.0", "x" * 51), "1 to 50"),
        (lambda: platform.upload("pk", good, "1.2.0", "2"), "digits alone"),
        (lambda: platform.upload("pk", text, "1.2.0"), "ends in"),
        (lambda: platform.upload("pk", empty, "1.2.0"), "empty"),
        (lambda: platform.upload("pk", tmp_path / "none.bin", "1.2.0"), "No such file"),
        (lambda: platform.upload("pk", good, "1.2.0", file="a b.bin"), "file name"),
        (lambda: platform.upgrade(firmware, ["d9"]), "no device d9"),
        (lambda: platform.upgrade("none"), "no firmware none"),
        (lambda: platform.upgrade(str(firmware)), f"no firmware {firmware}"),
        (lambda: platform.upgrade(firmware, retries=6), "6 retries"),
        (lambda: platform.upgrade(firmware), "d1: inactive"),
        (lambda: platform.status(5), "no batch 5"),
        (lambda: platform.events("d9"), "no device d9"),
    ):
        with pytest.raises(PlatformError, match=sentence):
            call()


def test_limits_of_a_product(stage, monkeypatch):
    platform = stage.open()
    stage.furnish()
    source = stage.folder / "a.bin"
    monkeypatch.setattr("tools.platform.model.FILE_MAX", len(CONTENT) - 1)
    with pytest.raises(PlatformError, match="longer than"):
        platform.upload("pk", source, "2")
    assert not (stage.folder / "firmware" / "2").exists()
    monkeypatch.setattr("tools.platform.model.FILE_MAX", len(CONTENT))
    assert platform.upload("pk", source, "2") == 2
    monkeypatch.setattr("tools.platform.model.FILES_MAX", 2)
    with pytest.raises(PlatformError, match="the most possible"):
        platform.upload("pk", source, "3")


# The API


def call(folder, path, body=None, token=None, method=None):
    """body: JSON, None = GET. Returns (status, answer)."""
    found = json.loads((folder / API_FILE).read_text())
    headers = {"Authorization": "Bearer " + (token or found["token"])}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(found["url"] + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_api_refuses(stage):
    stage.open()
    stage.furnish()
    assert call(stage.folder, "products") == (
        200,
        [{"key": "pk", "name": "pk", "signed": False}],
    )
    for path, body, token, status in (
        ("products", None, "wrong", 401),
        ("firmware", b"x", "wrong", 401),
        ("nonsense", None, None, 404),
        ("batches/7", None, None, 404),
        ("devices/d1/events", None, None, 404),
        ("products", b"{", None, 422),
        ("products", b"[]", None, 422),
        ("products", b'{"x": 1}', None, 422),
        ("products", b'{"key": "a/b"}', None, 400),
        ("devices", b'{"product": "pk"}', None, 422),
        ("devices", b'{"product": "pk", "identifier": 1}', None, 422),
        ("batches", b'{"firmware": 1, "retries": true}', None, 422),
        ("batches", b'{"firmware": 1, "devices": [["d1"]]}', None, 422),
        ("batches", b'{"firmware": 1, "shares": "5,4"}', None, 400),
        ("batches", b'{"firmware": 1, "timeout_s": 1e999}', None, 400),
        ("firmware", b"x", None, 422),
    ):
        got, answer = call(stage.folder, path, body, token)
        assert (got, list(answer)) == (status, ["error"]), (path, body)
    assert [item.name for item in (stage.folder / "firmware").iterdir()] == ["1"]


def test_a_stranger_does_not_throw_a_device_out(stage):
    platform = stage.open()
    firmware = stage.furnish()
    player = stage.join("d1")
    stranger = Player(platform.mqtt_port, "d1", "wrong")
    stage.players.append(stranger)
    assert stranger.ready() == "Not authorized"
    assert player.get()["code"] == 404
    platform.upgrade(firmware)
    assert player.take("upgrade")


def test_who_comes_again_has_left(stage):
    platform = stage.open()
    stage.furnish()
    first = stage.join("d1")
    first.client.reconnect_delay_set(3600, 3600)
    gone = queue.Queue()
    first.client.on_disconnect = lambda *_: gone.put(True)
    second = Player(platform.mqtt_port, "d1", stage.secrets["d1"])
    stage.players.append(second)
    assert second.ready() == "subscribed"
    assert gone.get(timeout=WAIT_S)
    assert second.get()["code"] == 404


def test_a_retained_command_waits_for_its_device(stage):
    platform = stage.open()
    stage.furnish()
    secret = platform.add_device("pk", "d1")
    platform.publish("/sys/pk/d1/ota/firmware/upgrade", '{"msgId": "7"}', retain=True)
    player = Player(platform.mqtt_port, "d1", secret)
    stage.players.append(player)
    assert player.ready() == "subscribed"
    assert player.take("upgrade") == {"msgId": "7"}


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.0\r\n\r\n", b"\x10\xff\xff\xff\x7f", b"\x10\x02\x00", b"\xe0\x00"]
)
def test_who_speaks_something_else_is_shown_out(stage, first):
    platform = stage.open()
    with socket.create_connection(("127.0.0.1", platform.mqtt_port), WAIT_S) as stranger:
        stranger.sendall(first)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) in (b"", b"\x20\x02\x00\x05")
    stage.furnish()
    assert stage.join("d1").get()["code"] == 404
