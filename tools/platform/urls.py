"""
URLs of firmware that end, and are for one device: signed by HMAC-SHA256 with a key of the
platform.

Pure. Whoever serves the files may ask the platform whether a URL holds (GET /firmware/check), or
knows the key and does as `Signer.check` does. See docs/fleet.md.
"""

import base64
import hashlib
import hmac
from urllib.parse import quote, urlencode

from tools.platform.model import Firmware, Key, PlatformError

PATH = "/firmware/"  # then the firmware's number, and the name of its file


class Refused(PlatformError):
    """A URL that does not hold, in one sentence."""


class Signer:
    """key: the secret; who knows it can make URLs."""

    def __init__(self, key: str):
        self._key = key.encode()

    def url(self, base: str, firmware: Firmware, key: Key, until: float) -> str:
        """base: how devices reach the files; key: of the device; until: time when it ends."""
        path = f"{PATH}{firmware.id}/{firmware.file}"
        device, ends = key[1], str(int(until))
        query = {"device": device, "ends": ends, "signature": self._sign(path, device, ends)}
        return base.rstrip("/") + quote(path) + "?" + urlencode(query)

    def check(self, path: str, device: str, ends: str, signature: str, now: float):
        """path: from PATH on; the others: of its query. Raises Refused."""
        if not hmac.compare_digest(self._sign(path, device, ends).encode(), signature.encode()):
            raise Refused("this URL is not as the platform signed it")
        if not now < int(ends):
            raise Refused("this URL has ended: ask the platform for the upgrade again")

    def _sign(self, path, device, ends):
        # What can be in one part cannot be taken for the next: no part has a line feed.
        text = "\n".join((path, device, ends))
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
