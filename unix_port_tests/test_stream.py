"""
Tests of ota/stream.py: every call ends in time, whatever the other end does. Nothing here waits.

Source of the expected values: docs/limits.md.
"""

import time
from errno import ECONNRESET, EHOSTUNREACH, ENOMEM, ETIMEDOUT

from scripted import POLLIN, StreamCase, stream

_OPEN_MS = 4000
_PACKET_MS = 700


class DeadlineTests(StreamCase):
    def test_time_left(self):
        end = stream.after(500)
        for waited, expected in ((0, 500), (499, 1), (1, 0), (1, 0), (100000, 0)):
            self.clock.wait(waited)
            self.assertEqual(stream.left(end), expected, waited)

    def test_none_left_at_once(self):
        self.assertEqual(stream.left(stream.after(0)), 0)

    def test_over_the_end_of_the_count(self):
        # The largest tick is the one before 0.
        self.clock.now = time.ticks_add(0, -100)
        end = stream.after(500)
        self.assertEqual(stream.left(end), 500)
        self.clock.wait(300)
        self.assertEqual(stream.left(end), 200)
        self.clock.wait(300)
        self.assertEqual(stream.left(end), 0)


class ConnectTests(StreamCase):
    def test_connects_with_a_time_out_and_reads_without_blocking(self):
        sock, one = self.scripted()
        one.socket(2, 1, 0)
        one.connect(("host", 80))
        self.assertEqual(
            sock.calls,
            [
                ("socket",),
                ("settimeout", 4),
                ("connect", ("host", 80)),
                ("setblocking", False),
                ("register", True, POLLIN),
            ],
        )

    def test_stands_in_for_the_module(self):
        _, one = self.scripted()
        self.assertIs(one.socket(one.AF_INET), one)
        self.assertEqual(one.getaddrinfo("host", 80), [(2, 1, 0, "", ("host", 80))])

    def test_what_the_module_lacks_is_an_attribute_error(self):
        _, one = self.scripted()
        self.assertFalse(hasattr(one, "SO_NOTHING"))

    def test_libraries_cannot_change_the_time_out(self):
        sock, one = self.connected()
        one.settimeout(None)
        one.settimeout(9)
        one.setblocking(True)
        self.assertEqual(sock.calls, [])

    def test_connect_that_fails(self):
        for number in (ETIMEDOUT, EHOSTUNREACH, ECONNRESET):
            sock, one = self.scripted()
            sock.fails["connect"] = OSError(number)
            one.socket()
            self.assertTrue(self.fails(number, one.connect, ("host", 80)), number)

    def test_all_that_connecting_reads_ends_in_4_s(self):
        # Each piece comes soon enough, all of them do not.
        script = []
        for _ in range(50):
            script += [100, b"x"]
        sock, one = self.connected(*script)
        begin = self.clock.now
        self.assertTrue(self.fails(ETIMEDOUT, one.read, 50))
        self.assertEqual(time.ticks_diff(self.clock.now, begin), _OPEN_MS)

    def test_close(self):
        sock, one = self.connected()
        one.close()
        self.assertEqual(sock.calls, [("close",)])

    def test_close_before_there_is_a_socket(self):
        sock, one = self.scripted()
        one.close()
        self.assertEqual(sock.calls, [])


class ReadyTests(StreamCase):
    def test_ready(self):
        for script, expected in (
            ([b"x"], True),
            ([b""], True),
            ([200, b"x"], True),
            ([201], False),
        ):
            sock, one = self.connected(*script)
            self.assertEqual(bool(one.poll(200)), expected, script)
            self.assertEqual(sock.polls, [200])

    def test_what_begins_has_to_be_there_soon(self):
        for script in ([b"x"], [b"x", 650, b"y"], [b"x", 300, b"y", 300, b"z", 101, b"!"]):
            _, one = self.connected(*script)
            self.clock.wait(60000)
            one.poll(0)
            begin = self.clock.now
            self.assertTrue(self.fails(ETIMEDOUT, one.read, 4), script)
            self.assertEqual(time.ticks_diff(self.clock.now, begin), _PACKET_MS, script)

    def test_each_ready_gives_time_anew(self):
        _, one = self.connected(b"x", 600, b"y")
        for expected in (b"x", b"y"):
            one.poll(650)
            self.assertEqual(one.read(1), expected)


class ReadTests(StreamCase):
    def test_read_puts_the_pieces_together(self):
        for script in ([b"abcde"], [b"ab", b"c", b"de"], [50, b"a", 50, 50, b"bcd", 1, b"efgh"]):
            _, one = self.connected(*script)
            self.assertEqual(one.read(5), b"abcde", script)

    def test_read_of_nothing(self):
        _, one = self.connected()
        self.assertEqual(one.read(0), b"")

    def test_read_past_the_end_of_the_stream(self):
        for script in ([b""], [b"abcd", b""], [b"ab", 10, b""]):
            _, one = self.connected(*script)
            self.assertTrue(self.fails(ETIMEDOUT, one.read, 5), script)

    def test_longest_message_is_kept(self):
        _, one = self.connected(*[b"x" * 512] * 32)
        self.assertEqual(len(one.read(16384)), 16384)

    def test_longer_message_is_read_and_thrown_away(self):
        _, one = self.connected(*([b"x" * 512] * 32 + [b"y", b"next"]))
        self.assertEqual(one.read(16385), b"")
        self.assertEqual(one.read(4), b"next")

    def test_flood_ends_in_time(self):
        # A message of any length whose bytes come without a pause.
        sock, one = self.connected()
        one.poll(0)
        sock.script = [b"x" * 512] * 2000
        sock.slow = 1
        self.assertTrue(self.fails(ETIMEDOUT, one.read, 512 * 2000))

    def test_what_the_socket_raises(self):
        for name, argument in (("read", 5), ("readline", None)):
            _, one = self.connected(OSError(ECONNRESET))
            arguments = () if argument is None else (argument,)
            self.assertTrue(self.fails(ECONNRESET, getattr(one, name), *arguments), name)


class ReadlineTests(StreamCase):
    def test_lines(self):
        _, one = self.connected(b"HTTP/1.0 200", 20, b" OK\r", b"\nT: b\r\n\r\nbody")
        for expected in (b"HTTP/1.0 200 OK\r\n", b"T: b\r\n", b"\r\n"):
            self.assertEqual(one.readline(), expected)
        self.assertEqual(one.read(4), b"body")

    def test_stream_that_ends_inside_a_line(self):
        for script in ([b""], [b"A: b", b""], [b"A: b\r", 20, b""]):
            _, one = self.connected(*script)
            self.assertTrue(self.fails(ETIMEDOUT, one.readline), script)

    def test_headers_that_an_upgrade_needs(self):
        # requests looks for lines that begin with "Location:" or "Transfer-Encoding:". Source: its
        # __init__.py.
        for line, expected in (
            (b"Location: /X", b"location: /X"),
            (b"LOCATION: /x", b"location: /x"),
            (b"location: /x", b"location: /x"),
            (b"Content-Range: Bytes 0-1/2", b"content-range: bytes 0-1/2"),
            (b"CONTENT-LENGTH: 5", b"content-length: 5"),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        ):
            for at in range(1, len(line)):
                _, one = self.connected(b"HTTP/1.0 200 OK\n", line[:at], 1, line[at:] + b"\r\n")
                one.readline()
                self.assertEqual(one.readline(), expected + b"\r\n")

    def test_others_are_left_out(self):
        # As many as a CDN sends: a dict of them would not fit into the heap.
        others = [b"Server: nginx\r\n", b"ETag: 5\n", b"no header\n", b"X: \xff\xfe\n", b": \n"]
        _, one = self.connected(b"HTTP/1.0 200 OK\n", *others, b"location: /\n", *others, b"\n")
        found = [one.readline() for _ in range(3)]
        self.assertEqual(found, [b"HTTP/1.0 200 OK\n", b"location: /\n", b"\n"])

    def test_status_is_whatever_comes_first(self):
        _, one = self.connected(b"SSH-2.0\r\n")
        self.assertEqual(one.readline(), b"SSH-2.0\r\n")

    def test_line_that_never_ends(self):
        _, one = self.connected(*([b"x" * 512] * 17))
        self.assertRaises(ValueError, one.readline)

    def test_line_that_stops(self):
        _, one = self.connected(b"HTTP/1.0 200")
        self.assertTrue(self.fails(ETIMEDOUT, one.readline))

    def test_headers_of_8_kib_are_the_longest(self):
        line = b"T: " + b"x" * 251 + b"\r\n"
        _, one = self.connected(*([line] * 32))
        for _ in range(32):
            self.assertEqual(len(one.readline()), 256)

    def test_headers_longer_than_8_kib(self):
        line = b"T: " + b"x" * 251 + b"\r\n"
        _, one = self.connected(*([line] * 32 + [b"\n"]))
        for _ in range(32):
            one.readline()
        self.assertRaises(ValueError, one.readline)

    def test_those_that_are_left_out_count(self):
        line = b"X: " + b"x" * 251 + b"\r\n"
        _, one = self.connected(*([line] * 32 + [b"\n"]))
        self.assertEqual(one.readline(), line)  # the first one is the status
        self.assertRaises(ValueError, one.readline)


class WriteTests(StreamCase):
    def test_write_does_not_block(self):
        sock, one = self.connected()
        one.write(b"abc")
        self.assertEqual((sock.calls, sock.polls), ([("write",)], []))
        self.assertEqual(sock.sent, b"abc")

    def test_write_of_the_first_bytes(self):
        sock, one = self.connected()
        one.write(b"abcdef", 4)
        self.assertEqual(sock.sent, b"abcd")

    def test_write_of_text(self):
        sock, one = self.connected()
        one.write("abc")
        self.assertEqual(sock.sent, b"abc")

    def test_write_of_nothing(self):
        sock, one = self.connected()
        one.write(b"")
        self.assertEqual(sock.calls, [])

    def test_write_piece_by_piece(self):
        sock, one = self.connected()
        sock.takes = [1, None, 2, None, None, 1]
        one.write(b"abcdef")
        self.assertEqual((sock.sent, len(sock.polls)), (b"abcdef", 3))

    def test_write_ends_at_the_deadline(self):
        sock, one = self.connected()
        sock.takes = [3] + [None] * 200
        begin = self.clock.now
        one.end = stream.after(1000)
        self.assertTrue(self.fails(ETIMEDOUT, one.write, b"abcdef"))
        self.assertEqual(time.ticks_diff(self.clock.now, begin), 1000)
        self.assertEqual(sock.sent, b"abc")

    def test_write_after_the_deadline(self):
        sock, one = self.connected()
        one.end = stream.after(0)
        self.assertTrue(self.fails(ETIMEDOUT, one.write, b"abc"))
        self.assertEqual(sock.sent, b"")

    def test_write_that_nothing_comes_of(self):
        sock, one = self.connected()
        sock.takes = [0]
        self.assertTrue(self.fails(ETIMEDOUT, one.write, b"abc"))

    def test_write_that_raises(self):
        sock, one = self.connected()
        sock.fails["write"] = OSError(ECONNRESET)
        self.assertTrue(self.fails(ECONNRESET, one.write, b"abc"))


class Library:
    """A module that opens connections, as umqtt and requests do."""

    socket = "its own"

    def __init__(self, raises=None):
        self._raises = raises

    def open(self, host, port=0):
        one = self.socket.socket()
        one.connect(one.getaddrinfo(host, port)[0][-1])
        if self._raises:
            raise self._raises
        return one.read(2)


def call(*arguments, **named):
    # Without TLS.
    return stream.call(None, "host", *arguments, **named)


class CallTests(StreamCase):
    def test_call_goes_over_the_stream(self):
        sock, _ = self.scripted(b"ok")
        library = Library()
        answer, one = call(library, library.open, "host", port=80)
        self.assertEqual(answer, b"ok")
        self.assertIsInstance(one, stream.Stream)
        self.assertIn(("connect", ("host", 80)), sock.calls)

    def test_socket_stays_open_after_a_call(self):
        sock, _ = self.scripted(b"ok!")
        library = Library()
        _, one = call(library, library.open, "host")
        self.assertFalse(("close",) in sock.calls)
        self.assertEqual(one.read(1), b"!")

    def test_library_has_its_module_back(self):
        for raises in (None, OSError(ECONNRESET), ValueError(), AssertionError()):
            self.scripted(b"ok")
            library = Library(raises)
            try:
                call(library, library.open, "host")
            except Exception as e:
                self.assertIs(e, raises)
            self.assertEqual(library.socket, "its own")

    def test_socket_is_closed_when_the_library_raises(self):
        for raises in (OSError(ECONNRESET), ValueError(), AssertionError()):
            sock, _ = self.scripted()
            library = Library(raises)
            try:
                call(library, library.open, "host")
            except Exception as e:
                self.assertIs(e, raises)
            self.assertEqual(sock.calls[-1], ("close",))

    def test_connect_that_fails_closes_the_socket(self):
        sock, _ = self.scripted()
        sock.fails["connect"] = OSError(EHOSTUNREACH)
        library = Library()
        self.assertTrue(self.fails(EHOSTUNREACH, call, library, library.open, "host"))
        self.assertEqual(sock.calls[-1], ("close",))

    def test_no_socket_left(self):
        sock, _ = self.scripted()
        sock.fails["socket"] = OSError(ENOMEM)
        library = Library()
        self.assertTrue(self.fails(ENOMEM, call, library, library.open, "host"))
        self.assertEqual(library.socket, "its own")

    def test_silent_server_ends_the_call(self):
        self.scripted()
        begin = self.clock.now
        library = Library()
        self.assertTrue(self.fails(ETIMEDOUT, call, library, library.open, "host"))
        self.assertEqual(time.ticks_diff(self.clock.now, begin), _OPEN_MS)
