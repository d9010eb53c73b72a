"""
Bad input over the real platform: each is reported with a clear code, the running image goes on,
nothing restarts.

One device takes all the cases that a worker has, one after the other, as one does in the field.
"""

import json
import re
from itertools import count

import pytest

from tests.bench import SIZE, Bench, app
from tests.bench_files import FileServer, answer, ranged
from tools.image import wrong

pytest_plugins = "tests.bench_fixtures"

SLOT = 1_572_864  # bytes of ota_1
VERSION = "1.1.0"

_numbers = count(1)


class Case:
    """A device at 1.0.0, a server, and a way to send commands one by one."""

    def __init__(self, bench, files, folder):
        self.bench, self.files, self.folder = bench, files, folder
        self.device = bench.device(bench.images("1.0.0", app=app("tries=1, stall_s=1")))
        self.image = bench.images(VERSION)

    def serve(self, handler):
        self.files.requests.clear()
        self.files.paths = {"/a.bin": handler}

    def answers(self, payload: str | bytes) -> str:
        """Sends it. Returns the code of the reply."""
        before = len(self.bench.heard("upgrade_reply"))
        self.bench.say(payload)
        return self.bench.hear("upgrade_reply", ".*", after=before)[0]

    def ends(self, image=None, **fields) -> str:
        """Sends a command for an image, which is taken. Returns how it ended."""
        before = len(self.bench.heard("progress"))
        assert self.answers(self.command(image, **fields)) == "200"
        return self.bench.hear("progress", "(failed|succ).*", after=before)[0]

    def command(self, image=None, **fields) -> str:
        fields = {"url": self.files.url + "/a.bin"} | fields
        image = image or self.image
        return self.bench.command(f"id-{next(_numbers)}", image, VERSION, **fields)


@pytest.fixture(scope="module")
def one(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("bad")
    bench = Bench(folder, images)
    with FileServer() as files:
        yield Case(bench, files, folder)
    bench.close()


@pytest.fixture
def case(one):
    """Nothing that a test does may start the device anew, or write over what runs."""
    one.serve(answer("200 OK", one.image.read_bytes()))
    yield one
    assert list(one.device.boots) == [("ota_0", 1)]
    running = one.bench.images("1.0.0", app=app("tries=1, stall_s=1")).read_bytes()
    assert one.device.slot_bytes("ota_0", len(running)) == running
    assert one.bench.heard("version") == ["1.0.0"]


def with_data(**fields):
    return lambda case: case.command(**fields)


def without(name):
    def make(case):
        message = json.loads(case.command())
        del message["data"][name]
        return json.dumps(message)

    return make


COMMANDS = {
    "not JSON": ("410", lambda case: "upgrade!"),
    "not UTF-8": ("410", lambda case: b'{"msgId": "\xff\xfe"}'),
    "empty": ("410", lambda case: ""),
    "cut short": ("410", lambda case: case.command()[:-9]),
    "a list": ("410", lambda case: "[]"),
    "a number": ("410", lambda case: "7"),
    "nested deeply": ("410", lambda case: '{"msgId": "n", "data": ' + "[" * 3000),
    "no data": ("410", lambda case: '{"msgId": "x"}'),
    "data is text": ("410", lambda case: '{"msgId": "x", "data": "url"}'),
    "no msgId": ("410", lambda case: case.command().replace("msgId", "id")),
    "msgId is a list": ("410", lambda case: '{"msgId": [1], "data": {}}'),
    "msgId is too long": ("410", lambda case: case.command().replace("id-", "x" * 70)),
    **{
        f"no {name}": ("410", without(name))
        for name in ("firmwareVersion", "url", "sign", "signMethod", "policy", "size")
    },
    "size is text": ("410", with_data(size="100000")),
    "size is true": ("410", with_data(size=True)),
    "size is null": ("410", with_data(size=None)),
    "size is a fraction": ("410", with_data(size=1000.5)),
    "size 0": ("410", with_data(size=0)),
    "size below 0": ("410", with_data(size=-4096)),
    "url is a number": ("410", with_data(url=8)),
    "version is null": ("410", with_data(firmwareVersion=None)),
    "version with a slash": ("410", with_data(firmwareVersion="1/2")),
    "version is too long": ("410", with_data(firmwareVersion="1" * 101)),
    "sign is short": ("410", with_data(sign="abcd")),
    "sign is not hex": ("410", with_data(sign="g" * 32)),
    "unknown policy": ("411", with_data(policy="now")),
    "unknown signMethod": ("412", with_data(signMethod="SHA3")),
    "another scheme": ("414", with_data(url="ftp://127.0.0.1/a.bin")),
    "no scheme": ("414", with_data(url="/a.bin")),
    "a line's end in the URL": ("414", with_data(url="http://127.0.0.1/a\r\nX: y")),
    "URL is too long": ("414", with_data(url="http://127.0.0.1/" + "a" * 1024)),
    "20 KB": ("410", lambda case: case.command(note="x" * 20_000)),
    "15 KB of something": ("410", lambda case: "x" * 15_000),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_command_that_is_none_is_refused(case, what):
    code, make = COMMANDS[what]
    assert case.answers(make(case)) == code
    assert case.files.requests == []


def image_by(name, change):
    """The server has a file that tools.image.wrong made, and the command is for that file."""

    def prepare(case):
        image = change(case.folder / name, case.image)
        case.serve(answer("200 OK", image.read_bytes()))
        return {"image": image}

    return prepare


def sized(size, told=None):
    """Both the command and the server say `size`, or the server says what is told."""

    def prepare(case):
        case.serve(answer("200 OK", case.image.read_bytes(), size=told or size))
        return {"size": size}

    return prepare


def too_short(case):
    case.serve(ranged(case.image.read_bytes(), SIZE + 1))
    return {"size": SIZE + 1}


def not_bootable(path, image):
    # The flash size of the header is covered by the hash alone.
    return wrong.flipped(path, image, 3, 4)


def without_hash(path, image):
    return wrong.flipped(path, image, 23, 0)


# The code that it ends with; what makes it so: sets up the server, returns fields of the command.
IMAGES = {
    "size beyond the slot": (420, sized(SLOT + 1)),
    "size far beyond": (420, sized(2**40)),
    "size beyond the slot, told by the command alone": ("420|433", sized(SLOT + 1, SIZE)),
    "size that is too small": (433, sized(SIZE - 1, SIZE)),
    "size that is too large": (433, sized(SIZE + 1, SIZE)),
    "body that ends early": (433, too_short),
    "body that goes on": (440, sized(SIZE - 1)),
    "wrong MD5": (440, lambda case: {"sign": "0" * 32}),
    "text": (421, image_by("text", lambda path, _: wrong.text(path))),
    "one byte": (421, image_by("byte", lambda path, _: path.write_bytes(b"\xe9") and path)),
    "no hash inside": (421, image_by("hash", without_hash)),
    "combined image": (424, image_by("all", lambda path, image: wrong.combined(path, image, b""))),
    "for another chip": (422, image_by("chip", lambda path, _: wrong.other_chip(path))),
    "ESP-IDF refuses it": (453, image_by("flip", not_bootable)),
}


@pytest.mark.parametrize("what", IMAGES)
def test_image_that_is_none_is_refused(case, what):
    code, prepare = IMAGES[what]
    assert re.fullmatch(rf"failed \d+ ({code})", case.ends(**prepare(case)))


def silent(sock, request):
    """Keeps the connection and says nothing, until the device has gone."""
    sock.recv(1)


def endless_headers(sock, request):
    sock.sendall(b"HTTP/1.0 200 OK\r\n")
    while True:
        sock.sendall(b"X-Header: " + b"x" * 1000 + b"\r\n")


def redirect(to):
    return answer("302 Found", b"", "Location: " + to)


# The code that it ends with; how often the file is asked for (tries=1: twice, where trying again
# may help); what the server does.
SERVERS = {
    "404": (431, 1, answer("404 Not Found")),
    "403": (431, 1, answer("403 Forbidden")),
    "401": (431, 1, answer("401 Unauthorized")),
    "204": (431, 1, answer("204 No Content")),
    "500": (431, 2, answer("500 Internal Server Error")),
    "503": (431, 2, answer("503 Service Unavailable")),
    "206 for what was no range": (431, 2, answer("206 Partial Content", b"x", "Content-Range: x")),
    "silent": (430, 2, silent),
    "silent in the body": (432, 2, ranged(b"\xe9" * 1000, SIZE, silent=True)),
    "ends in the body, knows no ranges": (433, 2, answer("200 OK", b"\xe9" * 1000, size=SIZE)),
    "closes at once": (430, 2, lambda sock, request: None),
    "no HTTP": (431, 2, lambda sock, request: sock.sendall(b"SSH-2.0-OpenSSH\r\n")),
    "headers without end": (431, 2, endless_headers),
    "chunked": (431, 2, answer("200 OK", b"0\r\n\r\n", "Transfer-Encoding: chunked")),
    "length is no number": (431, 2, answer("200 OK", b"", size="many")),
    "redirect to itself": (434, 4, redirect("/a.bin")),
    "redirect to https": (435, 1, redirect("https://127.0.0.1/a.bin")),
    "redirect to another scheme": (434, 1, redirect("ftp://127.0.0.1/a.bin")),
    "redirect to nowhere": (431, 1, redirect("")),
}


@pytest.mark.parametrize("what", SERVERS)
def test_server_that_has_no_image_is_given_up(case, what):
    code, requests, handler = SERVERS[what]
    case.serve(handler)
    assert re.fullmatch(rf"failed 0 {code}", case.ends())
    assert len(case.files.requests) == requests


def test_server_that_is_not_there_is_given_up(case):
    assert case.ends(url="http://127.0.0.1:1/a.bin") == "failed 0 430"


def test_https_waits_for_a_certificate_to_check(case):
    assert case.ends(url=case.files.url.replace("http:", "https:") + "/a.bin") == "failed 0 435"
    assert case.files.requests == []


def test_good_command_is_taken_after_all_that(bench, images, files):
    """After the bad ones, on a device of its own, since it restarts."""
    case = Case(bench, files, bench.folder)
    case.answers("upgrade!")
    case.serve(answer("404 Not Found"))
    assert case.ends() == "failed 0 431"
    case.serve(answer("200 OK", case.image.read_bytes()))
    assert case.ends() == "succeeded 100"
    bench.hear("version", VERSION)
