"""
Servers and brokers that are slow or silent: poll() comes back in time, and the reply to a command
leaves in time, measured on the device while it upgrades.
"""

import time

import pytest

from tests.bench import PATIENCE, SIZE, app, until
from tests.bench_files import answer, ranged

pytest_plugins = "tests.bench_fixtures"

NEW = "1.1.0"
WORK_MS, CONNECT_MS = 1000, 5000  # no poll() may last longer; the second: while one connects
REPLY_S = 10
DRIP_S = 1  # from one byte to the next

# The device tells each time that a poll() was the longest so far, of its kind.
MEASURE = """
from time import ticks_diff, ticks_ms
longest = [0, 0]  # ms: at work; while MQTT or HTTP connects
def poll(agent, link):
    job = agent._job
    kind = 1 if not link.up or job and not job.read else 0
    start = ticks_ms()
    agent.poll()
    took = ticks_diff(ticks_ms(), start)
    if took > longest[kind]:
        longest[kind] = took
        print("longest", *longest)
"""


def measured(settings: str) -> str:
    return app(settings, ("        agent.poll()\n", "        poll(agent, link)\n"), before=MEASURE)


def check_polls(device) -> None:
    told = [line.split() for line in device.console if line.startswith("longest ")]
    work, connect = map(int, told[-1][1:])
    assert work <= WORK_MS
    assert connect <= CONNECT_MS


def check_reply(bench, command: str, code: str) -> None:
    """Sends a command; its reply comes in time."""
    before = len(bench.heard("upgrade_reply"))
    start = time.monotonic()
    bench.say(command)
    bench.hear("upgrade_reply", code, after=before)
    assert time.monotonic() - start < REPLY_S


def dripping_headers(sock, request):
    for byte in b"HTTP/1.0 200 OK\r\nContent-Length: 262144\r\n\r\n" * 10:
        sock.sendall(bytes([byte]))
        time.sleep(DRIP_S)


def silent(sock, request):
    sock.recv(1)  # until the device has gone


@pytest.mark.parametrize(
    ("handler", "code"),
    [(dripping_headers, 430), (silent, 430), (ranged(b"\xe9" * 1000, SIZE, silent=True), 432)],
    ids=["drips headers", "silent", "silent in the body"],
)
def test_server_that_does_not_come_to_an_end(bench, images, files, handler, code):
    device = bench.device(images("1.0.0", app=measured("tries=1, stall_s=3")))
    files.paths["/a.bin"] = handler
    url = files.url + "/a.bin"
    check_reply(bench, bench.command("one", images(NEW), NEW, url), "200")
    check_reply(bench, bench.command("two", images(NEW), "1.2.0", url), "413")
    bench.hear("progress", f"failed \\d+ {code}")
    check_polls(device)
    assert len(device.boots) == 1


def test_server_that_drips_the_body_and_then_sends_it(bench, images, files):
    device = bench.device(images("1.0.0", app=measured("tries=0")))
    content = images(NEW).read_bytes()

    def dripping(sock, request):
        answer("200 OK", size=SIZE)(sock, request)
        for at in range(4):
            sock.sendall(content[at : at + 1])
            time.sleep(DRIP_S)
        sock.sendall(content[4:])

    files.paths["/a.bin"] = dripping
    url = files.url + "/a.bin"
    check_reply(bench, bench.command("one", images(NEW), NEW, url), "200")
    until(lambda: files.asked("/a.bin"))
    check_reply(bench, bench.command("two", images(NEW), "1.2.0", url), "413")
    check_reply(bench, bench.command("three", images(NEW), NEW, url), "200")
    bench.hear("version", NEW)
    check_polls(device)


def test_broker_that_is_silent_after_it_accepted(bench, images):
    bench.wire.stalled = True
    device = bench.device(images("1.0.0", app=measured("")), seen=False)
    until(lambda: len(bench.wire.connections) == 2)
    bench.wire.up()
    bench.hear("get", "")
    check_polls(device)
    assert bench.result(bench.offer(images(NEW), NEW)) == [("Succeeded", "", None, NEW)]


@pytest.mark.parametrize("silent", [False, True], ids=["drips", "half a packet"])
def test_broker_that_does_not_end_a_packet_during_a_download(make_bench, images, silent):
    bench = make_bench(throttle=30_000)
    device = bench.device(images("1.0.0", app=measured("")))
    batch = bench.offer(images(NEW), NEW)
    bench.hear("progress", "downloading 0")
    bench.wire.rate = 20 if silent else 1
    bench.say("x")  # still passes at once, and what comes after it does not
    if silent:
        bench.hear("upgrade_reply", "410")
        connection = bench.wire.connections[0]
        passed = connection.to_device
        bench.say("x" * 2000)
        until(lambda: connection.to_device > passed + 4)
        bench.wire.stalled = True
    until(lambda: len(bench.wire.connections) == 2)  # it gave the first one up
    bench.wire.rate = None
    bench.wire.up()
    bench.hear("get", "", after=1)
    check_reply(bench, bench.command("two", images(NEW), NEW, "http://127.0.0.1/a"), "200")
    assert [row.status for row in bench.platform.wait(batch, PATIENCE)] == ["Succeeded"]
    check_polls(device)
    assert [access.start for access in bench.platform.access_log] == [0]
