"""
The fault campaign's file server: what is on the wire, seen by http.client and by a raw socket.

What upgrades make of it, the campaign itself shows.
"""

import asyncio
import gzip
import http.client
import socket
import threading
from contextlib import contextmanager

import pytest

from tools.faults import behaviours
from tools.faults.behaviours import BEHAVIOURS, SUCCEEDED
from tools.faults.web import Web
from tools.toolchain import ROOT

PATIENCE_S = 20
FILE = bytes(range(256)) * 40  # 10,240 bytes, no two neighbours alike
SIZE, HALF = len(FILE), len(FILE) // 2
QUIET_S = 0.3  # so long nothing came: the server is silent
MOST = 200_000  # bytes that are read of what has no end


class Wire:
    """A Web in a loop of its own, and a client. Attributes: web, port."""

    def __init__(self, loop):
        self._loop = loop
        self.web = Web()
        self.web.files["/a.bin"] = FILE
        self.port = self.call(self.web.start())

    def call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def drop(self):
        async def drop():
            self.web.drop()

        self.call(drop())

    def begin(self, name):
        """A new case: a behaviour of the table, or one itself."""
        self.web.behave = BEHAVIOURS[name][0] if isinstance(name, str) else name
        self.web.requests.clear()

    def connect(self, start=0, path="/a.bin"):
        """A connection on which the file was asked for."""
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        span = f"Range: bytes={start}-\r\n" if start else ""
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: h:{self.port}\r\n{span}\r\n".encode())
        return sock

    def ask(self, start=0, path="/a.bin"):
        """
        Asks for the file. Returns (what came, bytes; how it ended: "closed", "reset", "silent",
        "endless").
        """
        data = b""
        with self.connect(start, path) as sock:
            sock.settimeout(QUIET_S)
            while len(data) < MOST:
                try:
                    part = sock.recv(65536)
                except TimeoutError:
                    return data, "silent"
                except ConnectionResetError:
                    return data, "reset"
                if not part:
                    return data, "closed"
                data += part
        return data, "endless"

    def get(self, **headers):
        """By http.client. Returns (status, body, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("GET", "/a.bin?token=1", headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body, response.headers


@contextmanager
def running():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    wire = Wire(loop)
    try:
        yield wire
    finally:
        try:
            wire.call(wire.web.stop())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(PATIENCE_S)
            loop.close()


@pytest.fixture
def wire():
    with running() as wire:
        yield wire


def split(data):
    """An answer's (first line, headers with names as sent, body)."""
    told, _, body = data.partition(b"\r\n\r\n")
    first, *lines = told.decode("latin-1").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines if ": " in line), body


def test_good_server_sends_the_file(wire):
    status, body, headers = wire.get()
    assert (status, body, headers["Content-Length"]) == (200, FILE, str(SIZE))
    request = wire.web.requests[0]
    assert (request.path, request.start, request.status) == ("/a.bin?token=1", 0, 200)
    assert request.headers["host"] == f"127.0.0.1:{wire.port}"


@pytest.mark.parametrize("start", [0, 1, HALF, SIZE - 1])
def test_good_server_knows_ranges(wire, start):
    status, body, headers = wire.get(Range=f"bytes={start}-")
    assert (status, body) == (206, FILE[start:])
    assert headers["Content-Range"] == f"bytes {start}-{SIZE - 1}/{SIZE}"
    assert wire.web.requests[0].start == start


def test_range_behind_the_end_is_refused(wire):
    status, body, headers = wire.get(Range=f"bytes={SIZE}-")
    assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{SIZE}")


def test_what_is_not_there_is_404_whatever_the_behaviour(wire):
    wire.begin("503")
    assert split(wire.ask(path="/b.bin")[0])[0] == "HTTP/1.1 404 Not Found"
    assert wire.web.requests[0].status == 404


def test_large_file_comes_whole(wire):
    wire.web.files["/a.bin"] = content = FILE * 400
    assert wire.get()[1] == content


@pytest.mark.parametrize(
    "request_", [b"", b"GET /a.bin HTTP/1.0\r\n", b"x\r\n\r\n", b"x" * 20_000]
)
def test_what_is_no_request_is_let_go(wire, request_):
    with socket.create_connection(("127.0.0.1", wire.port), PATIENCE_S) as sock:
        sock.sendall(request_)
        if len(request_) < 16_384:  # a longer one need not end
            sock.shutdown(socket.SHUT_WR)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # it left some of it unread
    assert (wire.web.connections, wire.web.requests) == (1, [])


def test_drop_resets_all_and_goes_on(wire):
    wire.begin("silent")
    socks = [wire.connect() for _ in range(3)]
    wait_for(lambda: len(wire.web.requests) == 3)
    wire.drop()
    for sock in socks:
        with sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
    wire.begin("200")
    assert wire.get()[0] == 200
    assert wire.web.connections == 4


def test_drop_in_a_send_that_waits(wire):
    wire.begin("headers without end")
    with wire.connect() as sock:
        assert sock.recv(1) == b"H"
        wire.drop()
        with pytest.raises(ConnectionResetError):
            while sock.recv(65536):
                pass


def test_stop_resets_all_and_the_port_can_be_had_again(wire):
    wire.begin("silent")
    with wire.connect() as sock:
        wait_for(lambda: wire.web.requests)
        wire.call(wire.web.stop())
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(ConnectionRefusedError):
        wire.connect()
    assert wire.call(wire.web.start(wire.port)) == wire.port
    wire.begin("200")
    assert wire.get()[1] == FILE


def test_stop_raises_what_a_behaviour_raised(wire):
    async def wrong(exchange):
        raise KeyError("wrong")

    wire.begin(wrong)
    assert wire.ask() == (b"", "closed")
    with pytest.raises(KeyError):
        wire.call(wire.web.stop())


def wait_for(condition):
    event = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if condition():
            return
        event.wait(0.01)
    raise TimeoutError


# Name to (first line's end, headers that it has, body, end) of the first request. None: any.
LENGTH = {"Content-Length": str(SIZE)}
FLIPPED = bytes(byte ^ 0xFF for byte in FILE)
FIRST = {
    "200": ("200 OK", LENGTH, FILE, "closed"),
    "header names in lower case": ("200 OK", {"content-length": str(SIZE)}, FILE, "closed"),
    "7 KiB of headers": ("200 OK", LENGTH | {"X-69": "x" * 95}, FILE, "closed"),
    "keep-alive, does not close": ("200 OK", {"Connection": "keep-alive"}, FILE, "silent"),
    "206 of all of it, no range asked": (
        "206 Partial Content",
        {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"},
        FILE,
        "closed",
    ),
    "206 of a part, no range asked": (
        "206 Partial Content",
        {"Content-Range": f"bytes 0-0/{SIZE}"},
        None,
        "closed",
    ),
    "drips single bytes": ("200 OK", LENGTH, FILE, "closed"),
    "204 No Content": ("204 No Content", {}, b"", "closed"),
    "304 Not Modified": ("304 Not Modified", {}, b"", "closed"),
    "400 Bad Request": ("400 Bad Request", {}, b"", "closed"),
    "401 Unauthorized": ("401 Unauthorized", {}, b"", "closed"),
    "403 Forbidden": ("403 Forbidden", {}, b"", "closed"),
    "404 Not Found": ("404 Not Found", {}, b"", "closed"),
    "410 Gone": ("410 Gone", {}, b"", "closed"),
    "416": ("416 Range Not Satisfiable", {}, b"", "closed"),
    "418 I'm a teapot": ("418 I'm a teapot", {}, b"", "closed"),
    "500": ("500 Internal Server Error", {}, b"", "closed"),
    "503": ("503 Service Unavailable", {"Retry-After": "1"}, b"", "closed"),
    "503 once": ("503 Service Unavailable", {}, b"", "closed"),
    "short body": ("200 OK", LENGTH, FILE[:HALF], "closed"),
    "short body once": ("200 OK", LENGTH, FILE[:HALF], "closed"),
    "short body, no ranges": ("200 OK", LENGTH, FILE[:HALF], "closed"),
    "short file": ("200 OK", {"Content-Length": str(HALF)}, FILE[:HALF], "closed"),
    "empty file": ("200 OK", {"Content-Length": "0"}, b"", "closed"),
    "long body": ("200 OK", LENGTH, FILE + bytes(100), "closed"),
    "long file": ("200 OK", {"Content-Length": str(SIZE + 100)}, FILE + bytes(100), "closed"),
    "negative length": ("200 OK", {"Content-Length": f"-{SIZE}"}, FILE, "closed"),
    "length of 30 digits": ("200 OK", {"Content-Length": "9" * 30}, FILE, "closed"),
    "length is a word": ("200 OK", {"Content-Length": "many"}, FILE, "closed"),
    "length is a fraction": ("200 OK", {"Content-Length": f"{SIZE}.0"}, FILE, "closed"),
    "two lengths, the last wrong": ("200 OK", {"Content-Length": str(SIZE - 1)}, FILE, "closed"),
    "chunked, endless": ("200 OK", {"Transfer-Encoding": "chunked"}, None, "endless"),
    "redirect, in lower case": ("302 Found", {"location": "/a.bin?1"}, b"", "closed"),
    "redirect, no host": ("302 Found", {"Location": "/a.bin?1"}, b"", "closed"),
    "redirect, relative to the folder": ("302 Found", {"Location": "a.bin?1"}, b"", "closed"),
    "redirect, empty": ("302 Found", {"Location": ""}, b"", "closed"),
    "other bytes": ("200 OK", LENGTH, FLIPPED, "closed"),
    "other bytes behind the first block": (
        "200 OK",
        LENGTH,
        FILE[:4096] + FLIPPED[4096:],
        "closed",
    ),
    "other last bit": ("200 OK", LENGTH, FILE[:-1] + b"\xfe", "closed"),
    "header of 64 KiB": ("200 OK", {"X": "x" * 65536}, FILE, "closed"),
    "header that is no UTF-8": ("200 OK", {"X": "\xe9"}, FILE, "closed"),
    "a blank line too many": ("200 OK", LENGTH, b"\r\n" + FILE, "closed"),
    "reset in the body": ("200 OK", LENGTH, FILE[:HALF], "reset"),
    "reset in the body once": ("200 OK", LENGTH, FILE[:HALF], "reset"),
    "silent in the body": ("200 OK", LENGTH, FILE[:HALF], "silent"),
    "silent in the body once": ("200 OK", LENGTH, FILE[:HALF], "silent"),
}


@pytest.mark.parametrize("name", FIRST)
def test_first_answer(wire, name):
    line, headers, body, end = FIRST[name]
    wire.begin(name)
    data, ended = wire.ask()
    first, told, sent = split(data)
    assert (first, ended) == ("HTTP/1.1 " + line, end)
    assert told | headers == told
    assert body is None or sent == body


# Name to all that comes at the first request, and how it ends.
RAW = {
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n" + FILE, "closed"),
    "short body, no length": (b"HTTP/1.1 200 OK\r\n\r\n" + FILE[:HALF], "closed"),
    "long file, no length": (b"HTTP/1.1 200 OK\r\n\r\n" + FILE + bytes(100), "closed"),
    "length is nothing": (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n" + FILE, "closed"),
    "two lengths, equal": (
        b"HTTP/1.1 200 OK\r\n" + b"Content-Length: %d\r\n" % SIZE * 2 + b"\r\n" + FILE,
        "closed",
    ),
    "two lengths, the first wrong": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Length: %d\r\n\r\n%s"
        % (SIZE - 1, SIZE, FILE),
        "closed",
    ),
    "redirect, nowhere": (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "closed"),
    "chunked, bad": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\xe9\r\n",
        "closed",
    ),
    "HTTP/0.9": (FILE, "closed"),
    "another protocol": (b"SSH-2.0-x\r\n", "silent"),
    "status is a word": (b"HTTP/1.1 OK\r\n\r\n", "closed"),
    "header without a colon": (
        b"HTTP/1.1 200 OK\r\ngarbage\r\nContent-Length: %d\r\n\r\n%s" % (SIZE, FILE),
        "closed",
    ),
    "lines end in LF alone": (
        b"HTTP/1.1 200 OK\nContent-Length: %d\nAccept-Ranges: bytes\nConnection: close\n\n%s"
        % (SIZE, FILE),
        "closed",
    ),
    "status cut": (b"HTTP/1.1 2", "closed"),
    "status cut once": (b"HTTP/1.1 2", "closed"),
    "headers cut": (b"HTTP/1.1 200 OK\r\nContent-Le", "closed"),
    "headers cut once": (b"HTTP/1.1 200 OK\r\nContent-Le", "closed"),
    "length cut once": (b"HTTP/1.1 200 OK\r\nContent-Length: 1", "closed"),
    "closed before the status": (b"", "closed"),
    "closed before the status once": (b"", "closed"),
    "reset before the status": (b"", "reset"),
    "reset before the status once": (b"", "reset"),
    "silent": (b"", "silent"),
    "silent once": (b"", "silent"),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_answer(wire, name):
    wire.begin(name)
    assert wire.ask() == RAW[name]


# What a resumed request gets: (first line's end, Content-Range, body).
RESUMED = {
    "header names in lower case, resumed": ("206 Partial Content", None, FILE[HALF:]),
    "416, resumed": ("416 Range Not Satisfiable", None, b""),
    "503 once, resumed": ("503 Service Unavailable", None, b""),
    "403 once, resumed": ("403 Forbidden", None, b""),
    "403, resumed": ("403 Forbidden", None, b""),
    "404, resumed": ("404 Not Found", None, b""),
    "206 of another range": ("206 Partial Content", (HALF + 1, SIZE), FILE[HALF:]),
    "206 of another file's size": ("206 Partial Content", (HALF, HALF + 1), FILE[HALF:]),
    "206, size not told": ("206 Partial Content", (HALF, "*"), FILE[HALF:]),
    "206, range not told": ("206 Partial Content", None, FILE[HALF:]),
    "206, body of another range": ("206 Partial Content", (HALF, SIZE), FILE[HALF - 1 : -1]),
    "200 to a range": ("200 OK", None, FILE),
    "other bytes, resumed": ("206 Partial Content", (HALF, SIZE), FLIPPED[HALF:]),
    "file changes": ("206 Partial Content", (HALF, SIZE), FLIPPED[HALF:]),
    "file changes and grows": (
        "206 Partial Content",
        (HALF, SIZE + 100),
        FILE[HALF:] + bytes(100),
    ),
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_answer(wire, name):
    line, span, body = RESUMED[name]
    wire.begin(name)
    assert split(wire.ask()[0])[2] == FILE[:HALF]
    first, headers, sent = split(wire.ask(HALF)[0])
    assert (first, sent) == ("HTTP/1.1 " + line, body)
    if span:
        start, size = span
        last = SIZE + 99 if size == SIZE + 100 else SIZE - 1
        assert headers["Content-Range"] == f"bytes {start}-{last}/{size}"
    else:
        assert "Content-Range" not in headers


@pytest.mark.parametrize("name", [name for name in BEHAVIOURS if " once" in name])
def test_what_happens_once_is_good_later(wire, name):
    wire.begin(name)
    for _ in range(2 if "resumed" in name else 1):
        wire.ask()
    assert split(wire.ask(HALF)[0])[2] == FILE[HALF:]
    assert [request.status for request in wire.web.requests][-1] == 206


def test_gzip_is_the_file(wire):
    for name in ("gzip", "gzip, no length"):
        wire.begin(name)
        _, headers, body = split(wire.ask()[0])
        assert headers["Content-Encoding"] == "gzip"
        assert headers.get("Content-Length") in (str(len(body)), None)
        assert gzip.decompress(body) == FILE


def test_chunks_are_the_file(wire):
    wire.begin("chunked")
    assert wire.get()[:2] == (200, FILE)
    wire.begin("chunked, in lower case")
    assert wire.get()[:2] == (200, FILE)
    assert b"\r\ntransfer-encoding: chunked\r\n" in wire.ask()[0]


def test_interim_answer_comes_first(wire):
    wire.begin("100 Continue first")
    data, _ = wire.ask()
    assert data.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert wire.get()[:2] == (200, FILE)  # http.client passes over it


def hops(wire, name):
    """Follows a redirect. Returns (status, each Location)."""
    wire.begin(name)
    found, path = [], "/a.bin"
    while len(found) < 10:
        first, headers, _ = split(wire.ask(path=path)[0])
        if "Location" not in headers:
            break
        found.append(headers["Location"])
        path = "/" + found[-1].split(str(wire.port))[-1].lstrip("/")
    return int(first.split(" ")[1]), found


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_of_each_kind(wire, code):
    status, found = hops(wire, f"redirect {code}")
    assert (status, found) == (200, [f"http://127.0.0.1:{wire.port}/a.bin?1"])
    assert [request.status for request in wire.web.requests] == [code, 200]


def test_redirects_elsewhere(wire):
    for name, to in {
        "redirect, another host": f"http://localhost:{wire.port}/a.bin?1",
        "redirect, another scheme": f"ftp://127.0.0.1:{wire.port}/a.bin?1",
        "redirect, https": f"https://127.0.0.1:{wire.port}/a.bin?1",
    }.items():
        assert hops(wire, name) == (200, [to])


@pytest.mark.parametrize(("name", "count"), [("3", 3), ("4", 4), ("no end", 10)])
def test_redirects_in_a_row(wire, name, count):
    status, found = hops(wire, f"redirects, {name}")
    assert (len(found), status) == (count, 302 if name == "no end" else 200)


def test_endless_status(wire):
    wire.begin("status without end")
    data, end = wire.ask()
    assert end == "endless"
    assert data.startswith(b"HTTP/1.1 200 xxx")
    assert b"\n" not in data


def test_endless_headers(wire):
    wire.begin("headers without end")
    data, end = wire.ask()
    assert end == "endless"
    assert data.startswith(b"HTTP/1.1 200 OK\r\nX: x")
    assert b"\r\n\r\n" not in data
    assert data.count(b"\r\nX: ") > 100


def test_slow_ones_give_byte_after_byte(wire):
    for name in ("drips the head", "drips the body", "pauses of the body"):
        wire.begin(name)
        with wire.connect() as sock:
            data = sock.recv(1)
            while b"\r\n\r\n" not in data if name != "drips the head" else len(data) < 3:
                data += sock.recv(65536)
        body = split(data)[2]
        assert data.startswith(b"HTT")
        assert FILE.startswith(body)
        assert len(body) < SIZE


def test_pauses_end_with_all_of_it(wire):
    wire.begin("pauses of the body")
    assert wire.get()[:2] == (200, FILE)


def test_drip_gives_all_of_it(wire):
    wire.begin(behaviours.drip(1_000_000))
    assert wire.get()[:2] == (200, FILE)
    assert wire.get(Range=f"bytes={HALF}-")[:2] == (206, FILE[HALF:])


@pytest.mark.parametrize("n", [0, 1, HALF, SIZE - 1, SIZE])
@pytest.mark.parametrize(
    ("make", "end"),
    [
        (behaviours.cut_at, "closed"),
        (behaviours.reset_at, "reset"),
        (behaviours.stall_at, "silent"),
    ],
)
def test_fault_at_a_byte_happens_once(wire, make, end, n):
    wire.begin(make(n))
    data, ended = wire.ask()
    assert (split(data)[2], ended) == (FILE[:n], end)
    data, ended = wire.ask(n if n < SIZE else 0)
    assert (split(data)[2], ended) == (FILE[n if n < SIZE else 0 :], "closed")


def test_fault_waits_for_a_connection_that_gets_there(wire):
    wire.begin(behaviours.cut_at(HALF))
    assert split(wire.ask(HALF + 1)[0])[2] == FILE[HALF + 1 :]
    assert split(wire.ask(HALF - 1)[0])[2] == FILE[HALF - 1 : HALF]
    assert split(wire.ask()[0])[2] == FILE


@pytest.mark.parametrize("n", [0, 1, 20])
def test_head_is_cut_once(wire, n):
    wire.begin(behaviours.cut_head_at(n))
    assert wire.ask() == (b"HTTP/1.1 200 OK\r\nContent-Length"[:n], "closed")
    assert wire.get()[:2] == (200, FILE)


def test_each_row_is_looked_at():
    text = (ROOT / "tests/test_faults_web.py").read_text(encoding="ascii")
    tables = {*FIRST, *RAW, *RESUMED, *(f"redirect {code}" for code in (301, 302, 303, 307, 308))}
    tables |= {f"redirects, {name}" for name in ("3", "4", "no end")}
    assert [n for n in BEHAVIOURS if n not in tables and f'"{n}"' not in text] == []


def test_expected_is_an_outcome():
    for name, (_, expected) in BEHAVIOURS.items():
        codes = expected if isinstance(expected, set) else set()
        assert expected == SUCCEEDED or codes, name
        assert all(410 <= code < 480 for code in codes), name
