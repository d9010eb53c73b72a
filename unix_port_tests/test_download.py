"""
Tests of ota/download.py, class Download, over scripted HTTP servers: good ones, broken ones, slow
ones.

Source of the expected values: RFC 9110 (Range, Content-Range, 206, 416), the codes in
docs/protocol.md.
"""

from errno import ECONNRESET

from fakes import END, Case, Settings, data
from files import sign_of

from ota.download import Download
from ota.protocol import OTAError, command

BODY = bytes(range(256)) * 4
SIZE = 1024
SIGN = sign_of([BODY])

_CALL_MS = 5000  # no call may last longer


def head(status, *lines):
    # The head of an HTTP answer.
    return b"\r\n".join((b"HTTP/1.0 " + status,) + lines) + b"\r\n\r\n"


def partial(begin, end=SIZE - 1, size=SIZE):
    return head(b"206 Partial Content", b"Content-Range: bytes %d-%d/%d" % (begin, end, size))


OK = head(b"200 OK")
WHOLE = head(b"200 OK", b"Content-Length: 1024")


def moved(location):
    return head(b"302 Found", b"Location: " + location)


class DownloadCase(Case):
    def download(self, url="http://host:8080/file.bin", size=SIZE, **settings):
        del self.net.sockets[:]  # the heap has no room for those of a loop
        ota = Settings()
        for name in settings:
            setattr(ota, name, settings[name])
        found = command("m1", data(sign=SIGN, size=size, url=url), True)
        self.job = Download(ota, found, 0)
        return self.job

    def fetch(self, buf_size=4096, most=3000):
        """All that comes: (bytes, -1 or the OTAError). No call lasts too long."""
        view = memoryview(bytearray(buf_size))
        got = b""
        for _ in range(most):
            before = self.clock.now
            try:
                n = self.job.readinto(view, len(view), 100)
            except OTAError as e:
                self.job.close()
                return got, e
            self.assertTrue(self.clock.since(before) <= _CALL_MS)
            if n < 0:
                return got, n
            got += view[:n]
            if not n:
                self.clock.advance(100)  # as the application does between two polls
        self.fail("never ends")

    def assertWhole(self, buf_size=4096):
        """It comes as it should."""
        got, end = self.fetch(buf_size)
        self.assertEqual(end, -1)
        self.assertTrue(got == BODY, got)
        self.assertClosed()

    def assertFails(self, code, detail=None, connections=None):
        """It ends with that code."""
        got, end = self.fetch()
        self.assertIsInstance(end, OTAError, got)
        self.assertEqual(end.code, code)
        if detail is not None:
            self.assertEqual(end.detail, detail)
        if connections is not None:
            self.assertEqual(len(self.net.sockets), connections)
        self.assertClosed()
        return got

    def assertClosed(self):
        self.assertTrue(all(sock.closed for sock in self.net.sockets))

    def lines(self, connection=-1):
        """The lines of a request."""
        return self.net.sockets[connection].sent.decode().split("\r\n")


class GoodTests(DownloadCase):
    def test_whole_body(self):
        self.download()
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(len(self.net.sockets), 1)

    def test_request(self):
        self.download("http://host:8080/a/file.bin?x=1&y=2")
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        lines = self.lines()
        self.assertEqual(lines[0].split(" ")[:2], ["GET", "/a/file.bin?x=1&y=2"])
        self.assertIn("Host: host:8080", lines)
        self.assertFalse(any(line.startswith("Range") for line in lines))
        self.assertEqual(self.net.asked, [("host", 8080)])

    def test_port_80_and_no_path(self):
        self.download("http://host")
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.net.asked, [("host", 80)])
        self.assertEqual(self.lines()[0].split(" ")[1], "/")

    def test_body_in_pieces_of_any_size(self):
        for piece in (1, 7, 512, 1023):
            pieces = (BODY[at : at + piece] for at in range(0, SIZE, piece))
            self.download()
            self.net.script(WHOLE, pieces)
            self.assertWhole()

    def test_small_buffer(self):
        self.download()
        self.net.script(WHOLE, BODY, END)
        self.assertWhole(buf_size=10)

    def test_no_length_in_the_answer(self):
        self.download()
        self.net.script(OK, BODY, END)
        self.assertWhole()

    def test_no_size_in_the_command(self):
        self.download(size=None)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.job.size, SIZE)

    def test_bytes_behind_the_end_do_not_come(self):
        self.download()
        self.net.script(OK, BODY + b"more", END)
        self.assertWhole()

    def test_names_of_headers_in_any_case(self):
        self.download(size=None)
        self.net.script(head(b"200 OK", b"CONTENT-length:1024"), BODY[:9], END)
        self.net.script(head(b"206 X", b"content-RANGE: bytes 9-1023/1024"), BODY[9:], END)
        self.assertWhole()

    def test_wait_is_as_long_as_told(self):
        self.download()
        self.net.script(WHOLE)
        view = memoryview(bytearray(16))
        self.job.readinto(view, len(view), 100)
        for wait in (0, 100, 700):
            before = self.clock.now
            self.assertEqual(self.job.readinto(view, len(view), wait), 0)
            self.assertEqual(self.clock.since(before), wait)


class ResumeTests(DownloadCase):
    def test_goes_on_where_it_was_cut(self):
        for cut in (1, 100, 1023):
            for end in (END, OSError(ECONNRESET)):
                self.download()
                self.net.script(WHOLE, BODY[:cut], end)
                self.net.script(partial(cut), BODY[cut:], END)
                self.assertWhole()
                self.assertIn("Range: bytes=%d-" % cut, self.lines())

    def test_again_and_again(self):
        # More often than `tries`: each of them brings something.
        self.download()
        self.net.script(WHOLE, BODY[:1], END)
        for at in range(1, 10):
            self.net.script(partial(at), BODY[at : at + 1], END)
        self.net.script(partial(10), BODY[10:], END)
        self.assertWhole()
        self.assertEqual(len(self.net.sockets), 11)

    def test_cut_in_the_head_is_no_resume(self):
        self.download()
        self.net.script(b"HTTP/1.0 200 OK\r\nContent-Le", OSError(ECONNRESET))
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertFalse(any(line.startswith("Range") for line in self.lines()))

    def test_range_without_a_length(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(partial(100), BODY[100:])
        self.assertWhole()

    def test_range_with_its_own_length(self):
        lines = b"Content-Range: bytes 100-1023/1024", b"Content-Length: 924"
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(head(b"206 Partial Content", *lines), BODY[100:])
        self.assertWhole()

    def test_whole_file_for_a_range(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()

    def test_whole_file_for_a_range_in_pieces(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(WHOLE, BODY[:60], 5, BODY[60:130], 5, BODY[130:], END)
        self.assertWhole()

    def test_other_range_is_not_taken(self):
        for answer in (
            partial(99),
            partial(101),
            partial(0),
            partial(100, SIZE - 2),
            partial(100, SIZE, SIZE + 1),
            partial(100, SIZE - 1, SIZE + 1),
            head(b"206 Partial Content"),
            head(b"206 Partial Content", b"Content-Range: bytes 100-1023/*"),
            head(b"206 Partial Content", b"Content-Range: bytes=100-1023/1024"),
            head(b"206 Partial Content", b"Content-Range: 100-1023/1024"),
            head(b"206 Partial Content", b"Content-Type: multipart/byteranges; boundary=x"),
            head(b"416 Range Not Satisfiable"),
            head(b"416 Range Not Satisfiable", b"Content-Range: bytes */1024"),
        ):
            self.download()
            self.net.script(WHOLE, BODY[:100], END)
            self.net.script(answer, b"wrong" * 100, END)
            self.net.script(WHOLE, BODY, END)
            self.assertWhole()
            self.assertFalse(any(line.startswith("Range") for line in self.lines()), answer)

    def test_file_changed_its_length(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(head(b"200 OK", b"Content-Length: 1025"), BODY, END)
        self.assertFails(433, connections=2)

    def test_file_went_away(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(head(b"404 Not Found"), END)
        self.assertFails(431, 404, connections=2)

    def test_seek_begins_anew(self):
        self.download()
        self.net.script(WHOLE, BODY[:100], END)
        view = memoryview(bytearray(100))
        while not self.job.readinto(view, len(view), 100):
            pass
        self.job.close()
        self.job.start(0)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
