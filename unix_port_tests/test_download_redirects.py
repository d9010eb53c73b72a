"""
Tests of ota/download.py: redirects, and what is no address for it.

Source of the expected values: the codes in docs/protocol.md; docs/limits.md.
"""

from fakes import END
from test_download import BODY, WHOLE, DownloadCase, head, moved, partial


class AddressTests(DownloadCase):
    def test_redirect_to_an_address(self):
        for status in (b"301", b"302", b"303", b"307", b"308"):
            del self.net.asked[:]
            self.download()
            line = b"Location: http://other:81/x/y?z"
            self.net.script(head(status + b" X", line), END)
            self.net.script(WHOLE, BODY, END)
            self.assertWhole()
            self.assertEqual(self.net.asked, [("host", 8080), ("other", 81)])
            self.assertEqual(self.lines()[0].split(" ")[1], "/x/y?z")
            self.assertIn("Host: other:81", self.lines())

    def test_redirect_by_any_spelling_of_the_header(self):
        for name in (b"Location", b"location", b"LOCATION", b"lOCATION"):
            for space in (b"", b" ", b"  "):
                self.download()
                self.net.script(head(b"302 Found", name + b":" + space + b"/x/y"), END)
                self.net.script(WHOLE, BODY, END)
                self.assertWhole()
                self.assertEqual(len(self.net.sockets), 2, name)
                self.assertEqual(self.lines()[0].split(" ")[1], "/x/y")

    def test_endless_redirect_by_any_spelling_is_434(self):
        for name in (b"location", b"LOCATION"):
            self.download()
            for _ in range(9):
                self.net.script(head(b"302 Found", name + b": /again"), END)
            self.assertFails(434, connections=4)

    def test_redirect_without_an_address_is_431(self):
        for line in (b"Location:", b"Content-Location: /x"):
            self.download()
            self.net.script(head(b"302 Found", line), END)
            self.assertFails(431, 302)

    def test_location_of_what_is_no_redirect_means_nothing(self):
        self.download()
        self.net.script(head(b"200 OK", b"Location: /x"), BODY, END)
        self.assertWhole()

    def test_redirect_to_a_path(self):
        self.download()
        self.net.script(moved(b"/x/y"), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.net.asked, [("host", 8080)] * 2)
        self.assertEqual(self.lines()[0].split(" ")[1], "/x/y")

    def test_three_redirects(self):
        self.download()
        for at in b"abc":
            self.net.script(moved(b"/%c" % at), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()

    def test_endless_redirect_is_434(self):
        self.download()
        for _ in range(9):
            self.net.script(moved(b"/again"), END)
        self.assertFails(434, connections=4)

    def test_resume_asks_the_first_address(self):
        self.download()
        self.net.script(moved(b"http://other/x"), END)
        self.net.script(WHOLE, BODY[:100], END)
        self.net.script(moved(b"http://third/x"), END)
        self.net.script(partial(100), BODY[100:], END)
        self.assertWhole()
        names = [name for name, _ in self.net.asked]
        self.assertEqual(names, ["host", "other", "host", "third"])
        self.assertIn("Range: bytes=100-", self.lines())

    def test_redirect_to_another_scheme(self):
        for location, code in (
            (b"https://host/x", 435),
            (b"ftp://host/x", 434),
            (b"file:///etc/passwd", 434),
            (b"HTTP://host/x", 434),
        ):
            self.download()
            self.net.script(moved(location), END)
            self.assertFails(code)

    def test_https_is_435_without_a_connection(self):
        self.download("https://host/x")
        self.assertFails(435, connections=0)
