"""
Tests of ota/trust.py, class Trust, and ota/download.py: where a download may go, and what a
connection with TLS failed of. Over scripted connections; over real ones: tests/test_trust_tls.py.

Source of the expected values: docs/trust.md, "URLs"; the codes in docs/protocol.md.
"""

from errno import ECONNRESET

from fakes import END
from test_download import BODY, WHOLE, DownloadCase, moved

from ota.protocol import OTAError
from ota.trust import Trust


class Context:
    """Stands for an SSLContext: its sockets are plain. wrapped: (server_hostname, ...)."""

    verify_callback = None

    def __init__(self, raises=None):
        self.wrapped = []
        self._raises = raises

    def wrap_socket(self, sock, server_hostname, do_handshake_on_connect):
        if do_handshake_on_connect:
            raise AssertionError("it would block")
        self.wrapped.append(server_hostname)
        sock.fault = self._raises
        return sock


class HostTests(DownloadCase):
    def test_named_one(self):
        for url in ("http://host/x", "http://host:8080/x"):
            self.download(url, trust=Trust(hosts=("other", "host")))
            self.net.script(WHOLE, BODY, END)
            self.assertWhole()

    def test_another_one_is_414_without_a_connection(self):
        for url in (
            "http://evil/x",
            "http://host.evil/x",
            "http://evil/host",
            "http://HOST/x",
            "http://host@evil/x",
            "http://host%2eevil/x",
            "http://hos/x",
            "http:///host/x",
            "https://evil/x",
        ):
            self.download(url, trust=Trust(hosts=("host",), tls=Context()))
            self.assertFails(414, connections=0)

    def test_name_before_an_at_sign_is_none(self):
        self.download("http://host:80@evil/x", trust=Trust(hosts=("host",)), tries=0)
        self.assertFails(431, connections=0)
        self.assertEqual(self.net.asked, [])

    def test_redirect_to_another_one_is_414(self):
        self.download(trust=Trust(hosts=("host",)))
        self.net.script(moved(b"http://evil/x"), END)
        self.assertFails(414, connections=1)

    def test_redirect_to_a_named_one(self):
        self.download(trust=Trust(hosts=("host", "mirror")))
        self.net.script(moved(b"http://mirror/x"), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()

    def test_no_header_says_who_asks(self):
        # Nothing of the first host's goes to the next one.
        self.download("http://host/x?token=secret", trust=Trust(hosts=("host", "mirror")))
        self.net.script(moved(b"http://mirror/x"), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertFalse(b"secret" in self.net.sockets[1].sent)
        for sock in self.net.sockets:
            names = [line.split(b":")[0].lower() for line in bytes(sock.sent).split(b"\r\n")[1:]]
            self.assertEqual([n for n in names if n not in (b"", b"host", b"connection")], [])


class TlsTests(DownloadCase):
    def secure(self, url="https://host/x", raises=None, **more):
        self.context = Context(raises)
        self.download(url, trust=Trust(tls=self.context), **more)

    def test_is_wrapped_with_the_host_of_the_url(self):
        for url, port in (("https://host/x", 443), ("https://host:8443/x", 8443)):
            self.secure(url)
            self.net.script(WHOLE, BODY, END)
            self.assertWhole()
            self.assertEqual(self.context.wrapped, ["host"])
            self.assertEqual(self.net.asked.pop(), ("host", port))

    def test_host_header_is_that_of_the_url(self):
        self.secure("https://host/x")
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertTrue(b"Host: host\r\n" in self.net.sockets[0].sent)

    def test_http_is_not_wrapped(self):
        self.secure("http://host/x")
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.context.wrapped, [])

    def test_https_without_a_ca_is_435(self):
        self.download("https://host/x", trust=Trust())
        self.assertFails(435, connections=0)

    def test_redirect_from_http_to_https(self):
        self.secure("http://host/x")
        self.net.script(moved(b"https://host/x"), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.context.wrapped, ["host"])

    def test_redirect_from_https_to_http_is_434(self):
        for location in (b"http://host/x", b"HTTP://host/x", b"ftp://host/x"):
            self.secure()
            self.net.script(moved(location), END)
            self.assertFails(434, connections=1)

    def test_redirect_to_a_path_stays_https(self):
        self.secure()
        self.net.script(moved(b"/y"), END)
        self.net.script(WHOLE, BODY, END)
        self.assertWhole()
        self.assertEqual(self.context.wrapped, ["host", "host"])

    def test_redirect_to_what_is_neither_is_435(self):
        self.secure("http://host/x")
        self.net.script(moved(b"wss://host/x"), END)
        self.assertFails(435, connections=1)

    def test_back_by_way_of_https_is_434(self):
        self.secure("http://host/x")
        self.net.script(moved(b"https://host/x"), END)
        self.net.script(moved(b"http://host/x"), END)
        self.assertFails(434, connections=2)

    def test_refused_certificates_have_codes_at_once(self):
        for text, code in (
            ("The certificate validity has expired", 491),
            ("The certificate validity starts in the future", 492),
            ("The certificate Common Name (CN) does not match with the expected CN", 493),
            ("The certificate is not correctly signed by the trusted CA", 494),
            ("The certificate is signed with an unacceptable hash.", 490),
        ):
            self.secure(raises=ValueError("\n%s\n" % text))
            self.net.script(WHOLE)
            self.assertFails(code, connections=1)
            self.assertTrue(self.net.sockets[0].closed)

    def test_gravest_reason_is_told(self):
        text = (
            "\nThe certificate validity has expired\n"
            "\nThe certificate is not correctly signed by the trusted CA\n"
        )
        self.secure(raises=ValueError(text))
        self.net.script(WHOLE)
        self.assertFails(494)

    def test_handshake_that_is_cut_is_490_after_all_tries(self):
        self.secure(raises=OSError(-29312), tries=2)
        for _ in range(3):
            self.net.script(WHOLE)
        self.assertFails(490, -29312, connections=3)

    def test_no_connection_is_490_after_all_tries(self):
        self.secure(tries=1)
        self.assertFails(490, connections=2)

    def test_connection_that_breaks_is_resumed(self):
        self.secure()
        self.net.script(WHOLE, BODY[:512], OSError(ECONNRESET))
        self.net.script(
            b"HTTP/1.0 206 X\r\nContent-Range: bytes 512-1023/1024\r\n\r\n", BODY[512:], END
        )
        self.assertWhole()
        self.assertEqual(len(self.context.wrapped), 2)

    def test_handshake_that_drips_ends(self):
        # write() says "not yet" for ever: the 4 s of a connection are its end.
        self.secure(tries=0)
        self.net.script(60000)
        socket = self.net.socket

        def full():
            sock = socket()
            sock.full = True
            return sock

        self.net.socket = full
        self.assertFails(490)


def fault(trust, error):
    # The code that an error of the handshake has.
    try:
        trust.fault(error)
    except OTAError as e:
        return e.code
    return None


class SelfSignedTests(DownloadCase):
    def test_is_told_from_an_unknown_ca(self):
        # Two names around the dates, as in a certificate: the same, or not.
        dates = b"0\x1e\x17\r" + b"250101000000Z" + b"\x17\r" + b"350101000000Z"
        name = b"0\x0f1\r0\x0b\x06\x03U\x04\x03\x0c\x04host"
        other = b"0\x0f1\r0\x0b\x06\x03U\x04\x03\x0c\x04tsoh"
        error = ValueError("\nThe certificate is not correctly signed by the trusted CA\n")
        for issuer, code in ((name, 495), (other, 494)):
            trust = Trust()
            self.assertEqual(trust._look(b"\x30\x82" * 9 + issuer + dates + name + b"key", 0), 0)
            self.assertEqual(fault(trust, error), code)

    def test_other_reasons_stay_what_they_are(self):
        trust = Trust()
        trust.own = True
        self.assertEqual(fault(trust, ValueError("\nThe certificate validity has expired\n")), 491)

    def test_what_is_no_certificate_does_no_harm(self):
        for value in (b"", b"\x17\r", bytes(50), b"\xff" * 50):
            try:
                self.assertEqual(Trust()._look(value, 0), 0)
            except IndexError:
                self.assertTrue(len(value) < 32)
