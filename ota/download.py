"""
One upgrade, from the first byte to the switch, in slices; loaded when the first one starts.

Download: the body of a URL, byte after byte in order, whatever the connection does: resumes by
Range, tries again, gives up in time, the digest running along. Upgrade: from there into the slot.
Neither talks to the platform. `requests` opens http, on our Stream, so that headers, body and
redirects have bounds. https waits for a certificate to check. Source: RFC 9110 (Range,
Content-Range); docs/protocol.md, docs/hardware.md.
"""

from binascii import hexlify
from hashlib import md5

import requests

from .protocol import OTAError
from .slot import Slot, booting, forget, head
from .stream import after, call, left

_TOO_LARGE = const(420)
_NO_CONNECTION = const(430)
_HTTP_STATUS = const(431)
_STALLED = const(432)
_LENGTH = const(433)
_REDIRECT = const(434)
_CERTIFICATE = const(435)
_MEMORY = const(436)
_TOO_SLOW = const(437)
_DIGEST = const(440)
_SWITCH = const(453)

# States of the journal's record, see there.
_FETCHING = const(2)
_SWITCHING = const(3)

_REDIRECTS_MAX = const(3)
_SLICE_MS = const(100)  # between two looks at MQTT
_BLOCK = const(4096)
_UNIT = const(65536)  # bytes from one note in the journal to the next


class Download:
    """
    One file. ota: the settings tries, stall_s, total_s; command: Command; done: int, where to
    begin. Attributes: done, bytes delivered so far; size; resumed, bool: not all of it came in
    one piece; digest.
    """

    _raw = None
    _range = True
    _tries = _hop = progress = 0

    def __init__(self, ota, command, done):
        self._ota = ota
        self._cmd = command
        self._at = command.url  # or where a redirect led to
        self.size = command.size
        self._end = after(ota.total_s * 1000)
        self.seek(done)

    def seek(self, done):
        """Goes on from another position."""
        self.done = done
        self.resumed = done > 0
        self.digest = md5()
        self._due = after(0)  # the next try, or once connected the end of patience

    def readinto(self, buf, ms):
        """
        Some of the body, into the beginning of buf (memoryview). ms: int, the longest wait
        for data; a connect takes up to 5 s.

        Returns int: bytes, 0 = none yet, -1 = it is complete. Raises OTAError 414, 430 to 437.
        """
        if self.done == self.size > 0:
            self.close()
            return -1
        if not left(self._end):
            raise OTAError(_TOO_SLOW)
        try:
            if not self._raw:
                if not left(self._due):
                    self._open()
                return 0
            if not self._sock.poll(ms):
                return 0 if left(self._due) else self._again(_STALLED)
            rest = self._skip or self.size - self.done
            if rest < len(buf):
                buf = buf[:rest]
            n = self._raw.readinto(buf)
        except OSError as e:
            return self._again(_NO_CONNECTION, e.errno)
        except OTAError:
            raise
        except MemoryError:  # one answer may be too much, the next one not
            return self._again(_MEMORY)
        except Exception:  # what is no HTTP, or more than this requests can do
            return self._again(_HTTP_STATUS)
        if not n:
            return self._again(_LENGTH)
        self._due = after(self._ota.stall_s * 1000)
        if self._skip:
            self._skip -= n
            return 0
        self._tries = 0
        self.done += n
        self.digest.update(buf if n == len(buf) else buf[:n])
        return n

    def right(self):
        """True when the digest is the command's; once."""
        return hexlify(self.digest.digest()).decode() == self._cmd.sign

    def close(self):
        if self._raw:
            self._sock.close()
            self._raw = None

    def _again(self, code, errno=0):
        # The next try, each wait longer; or the end of them. errno: or HTTP status.
        self.close()
        self._at = self._cmd.url
        self._hop = 0
        self._tries += 1
        if self._tries > self._ota.tries:
            raise OTAError(code, errno)
        self._due = after(500 << min(self._tries, 6))
        return 0

    def _open(self):
        url = self._at
        parts = url.split("/", 3)
        if parts[0] != "http:":
            raise OTAError(_CERTIFICATE)
        done = self.done
        headers = {"Host": parts[2]}  # requests leaves the port out
        if done:
            self.resumed = True
            if self._range:
                headers["Range"] = "bytes=%d-" % done
        response, self._sock = call(requests, requests.get, url, headers=headers)
        self._raw = response.raw
        headers = {}
        for name in response.headers:
            if name[:1] in "CLcl":  # Content-..., Location: a large dict finds no room
                headers[name.lower()] = response.headers[name]
        status = response.status_code
        url = headers.get("location")
        if url and 300 < status < 400:
            self.close()
            self._at = "http://" + parts[2] + url if url[:1] == "/" else url
            self._hop += 1
            if self._hop > _REDIRECTS_MAX:
                raise OTAError(_REDIRECT)
            return
        whole = int(headers.get("content-length", 0))
        size = self.size
        self._due = after(self._ota.stall_s * 1000)
        if status == 200:
            self._skip = done  # it begins at zero: what came already comes again
        elif headers.get("content-range") == "bytes %d-%d/%d" % (done, size - 1, size):
            self._skip = whole = 0
        else:
            if status in (206, 416):  # another range: again, without one
                self._range = False
            elif status < 500:
                raise OTAError(_HTTP_STATUS, status)
            self._again(_HTTP_STATUS, status)
            return
        self.size = size = size or whole
        if size <= 0 or whole and whole != size:
            raise OTAError(_LENGTH)


class Upgrade(Download):
    """A download into the slot. journal: Journal. Raises OTAError 423."""

    def __init__(self, ota, command, journal):
        self._slot = slot = Slot(ota.block)
        self._log = journal
        units = 0
        if journal.sign == command.sign and journal.slot == slot.slot:  # some of it is there
            units = min(journal.units & 1023, command.size // _UNIT)  # never negative
        journal.take(command, _FETCHING, slot.slot, units)
        super().__init__(ota, command, units * _UNIT)
        self._kept = self.done

    def step(self):
        """
        At most 1 s of work (5 s when it connects). Returns int: progress, 0 to 95, then 96: the
        slot is complete, its digest right. Raises OTAError, see Slot and Download, and 420 (too
        large for the slot), 440.
        """
        slot = self._slot
        end = after(_SLICE_MS)
        while left(end):
            fill = slot.fill
            if slot.safe < self._kept:
                slot.part.readblocks(slot.safe // _BLOCK, slot.view)
                slot.safe += _BLOCK
                self.digest.update(slot.view)
                continue
            if self.size > slot.size:
                raise OTAError(_TOO_LARGE)
            n = self.readinto(slot.view[fill:] if fill else slot.view, _SLICE_MS)
            if n > 0:
                slot.add(n, self.done == self.size)
                self.progress = slot.safe * 95 // self.size
            elif not n:
                break
            elif self.right():
                self.progress = 96
                break
            elif self._kept < 0 or not self.resumed:
                raise OTAError(_DIGEST)
            else:
                # It may be the fault of what was resumed: once more from zero.
                self._kept = -1
                slot.safe = 0
                self.seek(0)
            if not slot.fill and not slot.safe % _UNIT:
                self._log.units = slot.safe // _UNIT
                self._log.save(_FETCHING)
        return self.progress

    def switch(self):
        """Makes the new image the one to boot. Raises OTAError 453."""
        slot = self._slot
        journal = self._log
        # For an image that does not tell its version, see trial.begin.
        build = hexlify(head(slot.part)[176:184]).decode()
        setattr(journal, "v%d" % slot.slot, build + self._cmd.version)
        journal.save(_SWITCHING)
        try:
            slot.part.set_boot()
            if booting() != slot.slot:  # flash may fail silently
                raise OSError
        except OSError:  # or ESP-IDF's own check refuses the image
            forget(slot.slot)  # it must not boot after that
            raise OTAError(_SWITCH)
