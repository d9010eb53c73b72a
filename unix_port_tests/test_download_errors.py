"""
Tests of ota/download.py, class Download: each code of a download that fails, and how soon.

Source of the expected values: the codes in docs/protocol.md.
"""

import sys
from errno import ECONNREFUSED, ECONNRESET, ETIMEDOUT

from fakes import END
from test_download import BODY, OK, WHOLE, DownloadCase, head, moved, partial


def dripping(data):
    # A byte a second.
    for at in range(len(data)):
        yield 1000
        yield data[at : at + 1]


class ConnectionTests(DownloadCase):
    def test_refused_is_430_after_all_tries(self):
        self.download()
        self.assertFails(430, ECONNREFUSED, connections=6)

    def test_tries_is_a_setting(self):
        self.download(tries=0)
        self.assertFails(430, ECONNREFUSED, connections=1)

    def test_each_wait_is_longer(self):
        self.download()
        view = memoryview(bytearray(8))
        for seconds in (1, 2, 4, 8, 16):
            self.job.readinto(view, len(view), 100)
            tried = len(self.net.sockets)
            self.clock.advance(seconds * 1000 - 1)
            self.job.readinto(view, len(view), 100)
            self.assertEqual(len(self.net.sockets), tried)
            self.clock.advance(1)

    def test_name_that_is_not_found_is_430(self):
        self.download()
        self.net.unknown = OSError(-2)
        self.assertFails(430, -2)

    def test_silent_server_is_430(self):
        self.download(tries=1)
        self.net.script()
        self.net.script()
        self.assertFails(430, connections=2)

    def test_head_that_drips_is_430(self):
        self.download(tries=0)
        self.net.script(dripping(WHOLE))
        self.assertFails(430, connections=1)

    def test_request_that_cannot_be_written_is_430(self):
        self.download(tries=0)
        self.net.script(WHOLE, BODY)
        socket = self.net.socket

        def faulty():
            sock = socket()
            sock.fault = OSError(ECONNRESET)
            return sock

        self.net.socket = faulty
        self.assertFails(430, ECONNRESET)

    def test_write_that_does_not_get_out_is_430(self):
        self.download(tries=0)
        self.net.script(WHOLE, BODY)
        socket = self.net.socket

        def full():
            sock = socket()
            sock.full = True
            return sock

        self.net.socket = full
        self.assertFails(430)

    def test_memory_that_is_short_for_ever_is_436(self):
        self.download(tries=1)
        self.net.script(WHOLE, MemoryError())
        self.net.script(MemoryError())
        self.assertFails(436, connections=2)

    def test_memory_that_is_short_once_does_no_harm(self):
        self.download()
        self.net.script(WHOLE, MemoryError())
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()

    def test_line_of_the_head_that_is_too_long_is_431(self):
        self.download(tries=0)
        self.net.script(b"HTTP/1.0 200 OK\r\nX: " + b"x" * 3000 + b"\r\n", WHOLE, BODY, END)
        self.assertFails(431)

    def test_reset_that_never_ends_is_430(self):
        self.download()
        for _ in range(6):
            self.net.script(WHOLE, OSError(ECONNRESET))
        self.assertFails(430, ECONNRESET, connections=6)


class StatusTests(DownloadCase):
    def test_final_ones_are_431_at_once(self):
        for status in (400, 401, 403, 404, 410, 429, 304, 204):
            self.download()
            self.net.script(head(b"%d X" % status), END)
            self.assertFails(431, status, connections=1)

    def test_passing_ones_are_431_after_all_tries(self):
        for status in (500, 502, 503):
            self.download()
            for _ in range(6):
                self.net.script(head(b"%d X" % status), END)
            self.assertFails(431, status, connections=6)

    def test_server_that_comes_to_its_senses(self):
        self.download()
        self.net.script(head(b"503 Service Unavailable"), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()

    def test_what_is_no_http_is_431(self):
        for answer in (
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.0 OK\r\n\r\n",
            b"\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.0 300 X\r\nLocation: http://host/other\r\n\r\n",
        ):
            self.download(tries=0)
            self.net.script(answer, END)
            self.assertFails(431)

    def test_head_that_is_cut_off_is_430(self):
        # Also between two lines, where it could pass for a whole one.
        for answer in (WHOLE, moved(b"/other")):
            for cut in range(len(answer)):
                self.download(tries=0)
                self.net.script(answer[:cut], END)
                self.assertFails(430, ETIMEDOUT)

    def test_redirect_whose_head_is_cut_off_is_not_followed(self):
        self.download(tries=1)
        self.net.script(moved(b"/other")[:-2], END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.lines()[0].split(" ")[1], "/file.bin")

    def test_head_without_end_is_431(self):
        self.download(tries=0)
        self.net.script(b"HTTP/1.0 200 OK\r\n", iter([b"A: b\r\n" * 80] * 20), BODY)
        self.assertFails(431)

    def test_chunks_are_decoded_or_431(self):
        # By the generation of requests: 0.10 cannot.
        self.download(tries=0)
        answer = head(b"200 OK", b"Transfer-Encoding: chunked")
        self.net.script(answer, b"400\r\n", BODY, b"\r\n0\r\n\r\n", END)
        got, end = self.fetch()
        self.assertTrue(end == -1 and got == BODY or end.code == 431, end)


class Requests:
    """A module requests whose answer has these attributes."""

    socket = None

    def __init__(self, attributes):
        self._attributes = attributes

    def get(self, url, headers):
        stream = self.socket.socket()
        stream.connect(("host", 80))
        response = Answer()
        response.raw = stream
        response.status_code = 200
        for name in self._attributes:
            setattr(response, name, self._attributes[name])
        return response


class Answer:
    pass


class StrangeRequestsTests(DownloadCase):
    def setUp(self):
        super().setUp()
        self._module = sys.modules["ota.download"]
        self._requests = self._module.requests

    def tearDown(self):
        self._module.requests = self._requests
        super().tearDown()

    def test_is_431_after_all_tries(self):
        for attributes in (
            {"headers": None},
            {"headers": 7},
            {"headers": [("Content-Length", "1024")]},
            {},  # none at all, as old ones have it
        ):
            self._module.requests = Requests(attributes)
            self.download(tries=2)
            for _ in range(3):
                self.net.script(BODY)
            self.assertFails(431, connections=3)

    def test_good_one_of_that_kind(self):
        # Of the same making, so that the one above fails for what it names.
        self._module.requests = Requests({"headers": {"Content-Length": "1024"}})
        self.download()
        self.net.script(BODY, END)
        self.assertWhole()


class StallTests(DownloadCase):
    def test_silence_in_the_body_is_432(self):
        self.download(tries=0)
        self.net.script(WHOLE, BODY[:100])
        self.assertEqual(self.assertFails(432), BODY[:100])

    def test_after_stall_s_and_not_before(self):
        self.download(tries=0, stall_s=7)
        self.net.script(WHOLE, BODY[:100])
        before = self.clock.now
        self.assertFails(432)
        lasted = self.clock.since(before)
        self.assertTrue(7000 <= lasted <= 8000, lasted)

    def test_silence_shorter_than_that_is_waited_for(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], 29000, BODY[100:], END)
        self.assertWhole()
        self.assertEqual(len(self.net.sockets), 1)

    def test_another_connection_goes_on(self):
        self.download()
        self.net.script(WHOLE, BODY[:100])
        self.net.script(partial(100), BODY[100:], END)
        self.assertWhole()

    def test_tries_are_counted(self):
        self.download(stall_s=2)
        for _ in range(6):
            self.net.script(WHOLE)
        self.assertFails(432, connections=6)

    def test_body_that_drips_is_437(self):
        self.download(total_s=20)
        self.net.script(WHOLE, dripping(BODY))
        before = self.clock.now
        self.assertFails(437)
        self.assertTrue(20000 <= self.clock.since(before) <= 22000)

    def test_tries_without_end_are_437(self):
        self.download(total_s=60, tries=1000)
        self.assertFails(437)


class LengthTests(DownloadCase):
    def test_other_length_than_told_is_433_at_once(self):
        for length in (1023, 1025, 1 << 40, -5):
            self.download()
            self.net.script(head(b"200 OK", b"Content-Length: %d" % length), BODY, END)
            self.assertFails(433, connections=1)

    def test_no_length_anywhere_is_433(self):
        for answer in (OK, head(b"200 OK", b"Content-Length: 0")):
            self.download(size=None)
            self.net.script(answer, BODY, END)
            self.assertFails(433, connections=1)

    def test_server_without_ranges_that_always_breaks_off_is_433(self):
        self.download()
        for _ in range(9):
            self.net.script(WHOLE, BODY[:100], END)
        self.assertFails(433, connections=6)

    def test_body_that_never_begins_is_433_after_all_tries(self):
        self.download()
        for _ in range(6):
            self.net.script(WHOLE, END)
        self.assertFails(433, connections=6)
