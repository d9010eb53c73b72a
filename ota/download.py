"""
One upgrade, from the first byte to the switch, in slices; loaded when one starts.

Download: the body of a URL, byte after byte in order, whatever the connection does: resumes by
Range, tries again, gives up in time, the digest running along. Slot: blocks into the slot that
does not run (erase, write, read back). Upgrade: from one into the other. None talks to the
platform. `requests` opens http, on our Stream, so that headers, body and redirects have bounds.
https waits for a certificate to check. While bytes flow, nothing is allocated. Source: RFC 9110
(Range, Content-Range); docs/protocol.md, docs/hardware.md.
"""

from struct import pack_into

import requests

from . import OTAError, drop
from .stream import after, call, left

_TOO_LARGE = const(420)
_NO_APPLICATION = const(421)
_OTHER_CHIP = const(422)
_COMBINED = const(424)
_NO_CONNECTION = const(430)
_HTTP_STATUS = const(431)
_STALLED = const(432)
_LENGTH = const(433)
_REDIRECT = const(434)
_NO_CA = const(435)
_MEMORY = const(436)
_TOO_SLOW = const(437)
_DIGEST = const(440)
_ERASE = const(450)
_WRITE = const(451)
_READ_BACK = const(452)

# States of the journal's record, see there.
_FETCHING = const(2)

_REDIRECTS_MAX = const(3)
_SLICE_MS = const(100)  # between two looks at MQTT
_BLOCK = const(4096)
_PART = const(512)  # what is read back at a time
_UNIT = const(65536)  # bytes from one note in the journal to the next
_IOCTL_ERASE = const(6)


class Download:
    """
    One file. ota: the settings tries, stall_s, total_s; cmd: Command; done: int, where to
    begin. Attributes: done, bytes delivered so far; size; digest, for the caller to feed.
    """

    read = None
    range = True
    code = _NO_CONNECTION
    tries = hop = _skip = progress = 0

    def __init__(self, ota, cmd, done):
        self.ota = ota
        self.url = self.at = cmd.url  # at: or where a redirect led to
        self.size = cmd.size
        self.end = after(ota.total_s * 1000)
        self.start(done)

    def start(self, done):
        """Goes on from another position."""
        self.done = done
        self.digest = self.ota.hash()
        # The next try, or once connected the end of patience, 0 = it did not begin.
        self.due = after(0)

    def readinto(self, buf, n, ms):
        """
        Some of the body, into the beginning of buf (memoryview). n: int, bytes at most; ms:
        int, the longest wait for data; a connect takes up to 5 s.

        Returns int: bytes, 0 = none yet, -1 = it is complete. Raises OTAError 414, 430 to 437.
        """
        rest = self.size - self.done
        if not rest and self.size:
            self.close()
            return -1
        try:
            if not self.read:
                if not left(self.due):
                    self.open()
                return 0
            rest = min(n, self._skip or rest)
            n = self.read(buf, rest)
            if n is None and self.sock.poll(ms):
                n = self.read(buf, rest)
        except OSError as e:
            return self.next(self.code, e.errno)
        except OTAError:
            raise
        except MemoryError:  # one answer may be too much, the next one not
            return self.next(_MEMORY)
        except Exception:  # what is no HTTP, or more than this requests can do
            return self.next(_HTTP_STATUS)
        if n and left(self.end):
            self.due = 0
            if self._skip:
                self._skip -= n
                return 0
            self.tries = 0
            self.done += n
            return n
        if n is None:
            if not self.due:
                self.due = after(self.ota.stall_s * 1000)
            return 0 if left(self.due) else self.next(_STALLED)
        return self.next(_LENGTH)

    def close(self):
        if self.read:
            self.sock.close()
            self.read = None

    def next(self, code, errno=0):
        # The next try, each wait longer; or the end of them. errno: or HTTP status.
        self.close()
        if not left(self.end):
            raise OTAError(_TOO_SLOW)
        self.at = self.url
        self.hop = 0
        self.tries += 1
        if self.tries > self.ota.tries:
            raise OTAError(code, errno)
        self.due = after(500 << min(self.tries, 6))
        return 0

    def open(self):
        drop()
        url = self.at
        parts = url.split("/", 3)
        scheme = parts[0]
        host = parts[2]
        tls = self.ota.trust
        if tls:
            tls = tls.open(self, parts)
            url = "/".join(parts)
        elif scheme != "http:":
            raise OTAError(_NO_CA)
        done = self.done
        headers = {"Host": host}  # requests leaves the port out
        if done and self.range:
            headers["Range"] = "bytes=%d-" % done
        response, sock = call(tls, host, requests, requests.get, url, headers=headers)
        self.sock = sock
        # Not through response.raw: what newer ones put there allocates.
        self.read = sock.sock.readinto
        headers = response.headers  # those that Stream lets through
        status = response.status_code
        url = headers.get("location")
        if url and 300 < status < 400:
            self.close()
            self.at = url = scheme + "//" + host + url if url[:1] == "/" else url
            self.hop += 1
            if self.hop > _REDIRECTS_MAX or scheme > url[:6]:  # from https to http
                raise OTAError(_REDIRECT)
            return
        whole = int(headers.get("content-length", 0))
        size = self.size
        self.due = 0
        if status == 200:
            self._skip = done  # it begins at zero: what came already comes again
        elif headers.get("content-range") == "bytes %d-%d/%d" % (done, size - 1, size):
            self._skip = whole = 0
        else:
            if status in (206, 416):  # another range: again, without one
                self.range = False
            elif status < 500:
                raise OTAError(_HTTP_STATUS, status)
            self.next(_HTTP_STATUS, status)
            return
        self.size = size = size or whole
        if size <= 0 or whole and whole != size:
            raise OTAError(_LENGTH)


class Slot:
    """
    Writer of the slot that does not run. block: memoryview of 4,608 bytes; slot: which one it
    is, see slot.other. view: its first 4 KiB, the block to fill; count: bytes in it; copy:
    the other 512 bytes, for what is read back; done: how many bytes are safely in flash; size: of
    the slot.
    """

    exact = count = done = 0

    def __init__(self, block, slot):
        self.view = block[:_BLOCK]
        self.cut = parts = []
        for at in range(0, _BLOCK, _PART):
            parts.append(block[at : at + _PART])
        self.copy = block[_BLOCK:]
        self.part, self.slot, self.size, self.id = slot

    def write(self, n):
        """
        Writes the block, which is not full at the end of the image: n, int bytes. Then reads it
        back into its buffer, so that the digest can be that of what is in flash; when `exact`, it
        is compared at once. A block that is there already is not erased.

        Raises OTAError, before the first erase 421 (no application image), 422 (for another chip),
        424 (combined image: upgrade with the application alone), then 450, 451, 452.
        """
        image = self.view
        part = self.part
        if n < _BLOCK:
            for i in range(n, _BLOCK):
                image[i] = 0xFF
        if not self.done:
            # Byte 23: a SHA-256 is appended. Without it a flipped bit could go unseen at every
            # start.
            if image[0] != 0xE9 or not 1 <= image[1] <= 16 or image[23] != 1:
                raise OTAError(_NO_APPLICATION)
            if image[32:36] != b"\x32\x54\xcd\xab":
                raise OTAError(_COMBINED)
            if image[12:14] != self.id:
                raise OTAError(_OTHER_CHIP)
        block = self.done // _BLOCK
        code = _READ_BACK
        try:
            if not self.find(block):
                code = _ERASE
                part.ioctl(_IOCTL_ERASE, block)
                code = _WRITE
                part.writeblocks(block, image, 0)
                code = _READ_BACK
                if self.exact and not self.find(block):
                    raise OSError
            part.readblocks(block, image)
        except OSError:
            raise OTAError(code)
        self.done += n

    def find(self, block):
        # True when the block is in flash already.
        back = self.copy
        at = 0
        for part in self.cut:
            self.part.readblocks(block, back, at)
            if back != part:
                return False
            at += _PART
        return True


class Upgrade(Download):
    """A download into the slot. journal: Journal; slot: see Slot."""

    zip = None

    def __init__(self, ota, cmd, journal, slot):
        self.slot = slot = Slot(ota.block, slot)
        self.journal = journal
        units = 0
        if journal.sign == cmd.sign and journal.slot == slot.slot:  # some of it is there
            units = min(journal.units & 1023, cmd.size // _UNIT)  # never negative
        journal.start(cmd, _FETCHING, slot.slot, units)
        super().__init__(ota, cmd, units * _UNIT)
        self._kept = self.done

    def step(self):
        """
        At most 1 s of work (5 s when it connects). Returns int: progress, 0 to 95, then 96: the
        slot is complete, its digest right. Raises OTAError, see Slot and Download, and 420 (too
        large for the slot), 440.
        """
        slot = self.slot
        end = after(_SLICE_MS)
        if self.size > slot.size:
            raise OTAError(_TOO_LARGE)
        if self.zip:
            return self.zip.step(self, slot, end)
        view = slot.view
        while slot.done < self._kept and left(end):
            slot.part.readblocks(slot.done // _BLOCK, view)
            slot.done += _BLOCK
            self.digest.update(view)
        fill = slot.count
        n = 1
        while n > 0 and left(end):
            if fill:
                if not slot.done and fill > 20 and view[0] == 0x1F:  # gzip
                    drop()
                    from .inflate import Inflate

                    self.zip = Inflate(self, slot, fill)
                    fill = 0
                    break
                back = slot.copy
                n = self.readinto(back, min(_PART, _BLOCK - fill), _SLICE_MS)
                if fill <= _BLOCK - _PART:  # without a slice, that is an object
                    pack_into("512s", view, fill, back)
                else:
                    for i in range(n):
                        view[fill + i] = back[i]
            else:
                n = 0
                # What follows without a hitch, and most does, goes the short way.
                if slot.done and not (self.due or self.tries or self._skip):
                    try:
                        n = self.size - self.done >= _BLOCK and self.read(view) or 0
                        self.done += n
                    except OSError:  # comes again
                        pass
                n = n or self.readinto(view, _BLOCK if slot.done else _PART, _SLICE_MS)
            if n > 0:
                fill += n
                if fill == _BLOCK or self.done == self.size:
                    slot.write(fill)
                    self.digest.update(view if fill == _BLOCK else view[:fill])
                    fill = 0
                    if not slot.done % _UNIT:
                        self.journal.write(_FETCHING, slot.done // _UNIT)
        slot.count = fill
        if n < 0:
            return self.over()
        self.progress = slot.done * 95 // (self.size or 1)
        return self.progress

    def over(self, code=_DIGEST):
        """
        All bytes are there. When they are not right, once more from zero, each block compared: it
        may be the fault of what was resumed, of the connection, or of the flash.
        """
        slot = self.slot
        if code == _DIGEST and self.digest.digest().hex() == self.journal.sign:
            return 96
        if slot.exact > 1:
            raise OTAError(code)
        slot.exact = 2
        self._kept = slot.done = slot.count = self.journal.units = 0
        self.zip = None
        self.close()
        self.journal.write(_FETCHING)
        self.start(0)
        return 0
