"""
Who may: signed manifests, TLS with a pinned CA, allowed hosts; loaded when boot.py asks for it.

A manifest is one line of text, signed with RSA (PKCS#1 v1.5, SHA-256):

    ota1 PRODUCT BOARD VERSION MD5 SIZE SHA256 SEQUENCE FROM

SEQUENCE and FROM are ten digits. A sequence never falls, unless FROM names the one that it falls
from. The journal keeps the highest one that was ever confirmed, and the SHA-256 behind it: `base`;
`up` is that of the upgrade under way. Source: RFC 8017, 8.2.2; docs/trust.md.
"""

from hashlib import md5, sha256

from . import OTAError

_URL = const(414)
_NO_CONNECTION = const(430)
_NO_CA = const(435)
_MEMORY = const(436)
_SIGNATURE = const(441)
_UNSIGNED = const(442)
_MANIFEST = const(443)
_UNFIT = const(446)
_OLDER = const(447)
_OTHER_BYTES = const(448)
_SHA256 = const(449)
_HANDSHAKE = const(490)
_EXPIRED = const(491)

_EXPONENT = const(65537)
_BITS = const(52 * 8)  # of what follows the padding's 0xFF
# What stands before the digest: the end of the padding, and SHA-256's name in ASN.1.
_INFO = const(b"\x00010\r\x06\t`\x86H\x01e\x03\x04\x02\x01\x05\x00\x04 ")


class Trust:
    """
    keys: public keys, each the modulus as hex digits, 512 or 768; none = what is not signed may
    come, too. board: str, what a manifest has to name. tls: an SSLContext, for https and for
    MQTT; None = no https. hosts: names that a URL may lead to; none = all.
    """

    own = sock = 0

    def __init__(self, keys=(), board="", tls=None, hosts=()):
        self.keys = keys
        self.board = board
        self.tls = tls
        self.hosts = hosts

    def check(self, ota, cmd, data):
        """
        Is a command one that the owner signed, for this device, and not an older one? data: dict,
        of the message. Raises OTAError 436, 441 to 448.
        """
        if not self.keys:
            return
        code = _UNSIGNED
        try:
            text = data["manifest"]
            sign = data["signature"]
            code = _SIGNATURE
            hash = int((_INFO + sha256(text).digest()).hex(), 16)
            n = _BITS  # else the compiler writes out 2**416: 126 digits
            for key in self.keys:
                start = (1 << len(key) * 4 - 15) - (1 << n) + hash
                if len(sign) == len(key) and pow(int(sign, 16), _EXPONENT, int(key, 16)) == start:
                    break
            else:
                raise ValueError
            code = _MANIFEST
            items = text.split(" ")
            cmd.size = cmd.size or int(items[5])  # an answer to get need not tell it
            for value in (
                "ota1",
                ota._base.split("/")[2],
                self.board,
                cmd.version,
                cmd.sign,
                str(cmd.size),
            ):
                if items.pop(0) != value:
                    raise ValueError
                code += code < _UNFIT
            hash, value, start = items
            n = ota._log.base
            key = n[:10]
            code = _OLDER
            if value < key != start:
                raise ValueError
            code = _OTHER_BYTES
            value += hash
            if value[:10] == key and value != n:
                raise ValueError
        except MemoryError:
            raise OTAError(_MEMORY)
        except Exception:  # what hostile bytes can raise is a long list
            raise OTAError(code)
        ota._log.up = value
        self.sign = cmd.sign
        self.hash = hash
        ota.hash = self.start

    def start(self):
        """
        A digest begins: the MD5, and the SHA-256 beside it. Returns what is fed, as hashlib's.
        """
        self.md5 = md5()
        self.sha = sha256()
        return self

    def update(self, data):
        self.md5.update(data)
        self.sha.update(data)

    def digest(self):
        """The MD5's. Raises OTAError 449 when that is right and the SHA-256 is not."""
        found = self.md5.digest()
        if found.hex() == self.sign and self.sha.digest().hex() != self.hash:
            raise OTAError(_SHA256)
        return found

    def confirm(self, ota):
        """What runs has proved itself. The caller writes the journal."""
        log = ota._log
        log.base = max(log.base, log.up)

    def open(self, job, items):
        """
        May a Download go there? items: its URL, split at the slashes; gets the port. Returns what
        does TLS, None = nobody. Raises OTAError 414, 435.
        """
        host = items[2].split(":")[0]
        if self.hosts and host not in self.hosts:
            raise OTAError(_URL)
        job.code = _NO_CONNECTION
        if items[0] == "http:":
            return None
        if items[0] != "https:" or not self.tls:
            raise OTAError(_NO_CA)
        job.code = _HANDSHAKE
        items[0] = "http:"  # requests' part: it would do TLS unchecked
        if host == items[2]:
            items[2] += ":443"
        return self

    def wrap(self, sock, host):
        """
        The socket, connected, with TLS on it; the handshake comes when something is written.
        host: whom the certificate has to name.
        """
        self.sock = sock
        tls = self.tls
        tls.verify_callback = self._look
        return tls.wrap_socket(
            sock, server_hostname=host.split(":")[0], do_handshake_on_connect=False
        )

    def _look(self, value, _):
        # Did it sign itself? The text of the error does not tell. Before and behind its dates
        # stand the names of who signed, and of whom it is.
        value = bytes(value)
        n = value.find(b"\x17\r")
        size = value[n + 31]
        self.own = value[n - 4 - size : n - 2] == value[n + 30 : n + 32 + size]
        return 0

    def fault(self, value):
        """
        Why a connection with TLS failed: value, an exception. Raises OTAError 490 to 495 when the
        certificate was refused.
        """
        if self.sock:
            self.sock.close()  # a failed handshake forgets it
        if isinstance(value, ValueError):
            # The last line is the gravest: has expired, in the future, expected CN, trusted CA.
            n = "deNA".find(str(value)[-2:-1])
            raise OTAError(_EXPIRED + n + (n > 2 and self.own))
