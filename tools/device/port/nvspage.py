"""
One page of non-volatile storage: 126 entries of 32 bytes, and what a power cut leaves of them.

Header of 32 bytes, a table of 2 bits an entry, the entries. An item (a value, a chunk of a blob,
the index of a blob) is one entry, a chunk also the entries of its data behind it. It is written
first, then marked written in the table, from its last entry down; erasing marks it erased.
Nothing here looks beyond its page. Source: ESP-IDF nvs_page.cpp (5.5), docs "NVS: Structure of a
page".
"""

import struct
from binascii import crc32

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


# States of a page
BLANK = const(0xFFFFFFFF)
ACTIVE = const(0xFFFFFFFE)
FULL = const(0xFFFFFFFC)
FREEING = const(0xFFFFFFF8)
CORRUPT = const(0xFFFFFFF0)
_INVALID = const(0)  # never in flash: a write failed; until the next start the page is not used

# Types of an item
U8 = const(0x01)
I32 = const(0x14)
DATA = const(0x42)
INDEX = const(0x48)
ANY = const(0xFF)  # whichever type, namespace, chunk or version

ENTRIES = const(126)
CHUNK = const(4000)  # bytes of a blob that fit into one page

_SECTOR = const(4096)
_ONES = const(0xFFFFFFFF)
_VERSION = const(0xFE)
_INVALID_STATE = const(0x110B)
_EMPTY = const(3)
_WRITTEN = const(2)
_ERASED = const(0)


def _item_crc(item):
    view = memoryview(item)
    return crc32(view[8:], crc32(view[:4], _ONES))


def _identity(item):
    # What ESP-IDF hashes: namespace, key, chunk; not the type.
    return crc32(item[3:4], crc32(item[8:24], crc32(item[:1], _ONES))) & 0xFFFFFF


class Page:
    """
    One sector, as it is after a start.

    flash: Flash; address: of the sector; item: bytearray of 32 that all pages share, the item that
    was read last. The table of states is held in memory, as ESP-IDF holds it.
    """

    def __init__(self, flash, address, item):
        self.flash = flash
        self.address = address
        self.item = item
        self.seq = 0
        self.next = ENTRIES  # first free entry, where the page is active
        self.table = bytearray(32)
        header = flash.read(address, 32)
        self.state, seq = struct.unpack_from("<II", header)
        if self.state == BLANK:
            for at in range(address, address + _SECTOR, 32):
                if flash.read(at, 32) != b"\xff" * 32:
                    self.state = CORRUPT
                    break
        elif struct.unpack_from("<I", header, 28)[0] != crc32(header[4:28], _ONES):
            self.state = CORRUPT
        elif self.state in (ACTIVE, FULL, FREEING):
            self.seq = seq
            flash.readinto(address + 32, self.table)
            self._check()
        else:
            self.state = CORRUPT

    def valid(self):
        return self.state in (ACTIVE, FULL, FREEING)

    def get(self, i):
        return self.table[i >> 2] >> ((i & 3) << 1) & 3

    def blank(self):
        return self.state == BLANK

    def _program(self, offset, data):
        try:
            self.flash.program(self.address + offset, data)
        except OSError:
            self.state = _INVALID
            raise

    def used(self):
        return sum(1 for i in range(ENTRIES) if self.get(i) == _WRITTEN)

    def mark(self, begin, end, state):
        # From the last entry down, a word of the table (16 entries) at a time.
        while end > begin:
            first = max(begin, (end - 1) & ~15)
            for i in range(first, end):
                shift = (i & 3) << 1
                self.table[i >> 2] = self.table[i >> 2] & ~(3 << shift) | state << shift
            word = (first >> 4) * 4
            self._program(32 + word, self.table[word : word + 4])
            end = first

    def load(self, i):
        self.flash.readinto(self.address + 64 + i * 32, self.item)
        return struct.unpack_from("<I", self.item, 4)[0] == _item_crc(self.item)

    def erase_item(self, i):
        span = 1
        if self.get(i) == _WRITTEN and self.load(i):
            span = max(1, min(self.item[2], ENTRIES - i))
        self.mark(i, i + span, _ERASED)
        self.next = max(self.next, i + span)

    def find(self, space, kind, key=None, start=0, chunk=ANY, version=ANY):
        """
        Index of the first matching item from `start` on, or -1; it is then in self.item.

        ANY fits all; with a key it does not fit chunks. An item with a bad checksum is erased.
        """
        item = self.item
        i = start
        while self.valid() and i < min(self.next, ENTRIES):
            at = i
            i += 1
            if self.get(at) != _WRITTEN:
                continue
            if not self.load(at):
                self.mark(at, at + 1, _ERASED)
                continue
            found = item[1]
            if found == DATA:
                i = at + max(1, item[2])
            if space not in (ANY, item[0]) or (key is not None and key != item[8:24]):
                continue
            if kind not in (ANY, found) or (kind == ANY and key is not None and found == DATA):
                continue
            if chunk not in (ANY, item[3]) or (found == INDEX and version not in (ANY, item[29])):
                continue
            return at
        return -1

    def room(self):
        """Bytes of one chunk that still fit (getVarDataTailroom)."""
        if self.state == BLANK:
            return CHUNK
        return max(0, ENTRIES - 1 - self.next) * 32 if self.state in (ACTIVE, _INVALID) else 0

    def write_item(self, space, kind, key, data, chunk=ANY):
        """
        Append an item; key: 16 bytes. False when it does not fit. Raises OSError: -4363 after a
        write that failed, what Flash raises.
        """
        if self.state == _INVALID:
            raise OSError(-_INVALID_STATE)
        entries = 1 + (len(data) + 31) // 32 if kind == DATA else 1
        if self.state == BLANK:
            self._begin()
        if self.state != ACTIVE or self.next + entries > ENTRIES:
            return False
        item = bytearray(b"\xff" * 32)
        struct.pack_into("<BBBB", item, 0, space, kind, entries, chunk)
        item[8:24] = key
        if kind == DATA:
            struct.pack_into("<HHI", item, 24, len(data), 0xFFFF, crc32(data, _ONES))
        else:
            item[24 : 24 + len(data)] = data
        struct.pack_into("<I", item, 4, _item_crc(item))
        self.append(item, 1)
        if kind == DATA:
            whole = len(data) // 32
            if whole:
                self.append(memoryview(data)[: whole * 32], whole)
            if len(data) % 32:
                tail = bytearray(b"\xff" * 32)
                tail[: len(data) % 32] = memoryview(data)[whole * 32 :]
                self.append(tail, 1)
        return True

    def append(self, data, entries):
        begin = self.next
        self._program(64 + begin * 32, data)
        self.mark(begin, begin + entries, _WRITTEN)
        self.next = begin + entries

    def _begin(self):
        header = bytearray(b"\xff" * 32)
        struct.pack_into("<IIB", header, 0, ACTIVE, self.seq, _VERSION)
        struct.pack_into("<I", header, 28, crc32(header[4:28], _ONES))
        self._program(0, header)
        self.state = ACTIVE
        self.next = 0
        self.table[:] = b"\xff" * 32

    def set_state(self, state):
        self._program(0, struct.pack("<I", state))
        self.state = state

    def erase(self):
        self.flash.erase(self.address)
        self.state = BLANK
        self.next = ENTRIES

    def copy_to(self, other):
        if other.state == BLANK and self.used():
            other._begin()
        i = 0
        while i < ENTRIES:
            span = 1
            if self.get(i) == _WRITTEN:
                self.load(i)
                span = max(1, min(self.item[2], ENTRIES - i))
                for entry in range(i, i + span):
                    self.load(entry)
                    other.append(self.item, 1)
            i += span

    def _check(self):
        # What a cut may have left: half an entry behind the last one, half an item, an item twice.
        active = self.state == ACTIVE
        if active:
            self.next = 0
            while self.next < ENTRIES and self.get(self.next) != _EMPTY:
                self.next += 1
            while self.next < ENTRIES and self._begun(self.next):
                self.mark(self.next, self.next + 1, _ERASED)
                self.next += 1
        seen = {}
        i = 0
        last = -1
        while i < self.next:
            at = i
            i += 1
            state = self.get(at)
            if state == _ERASED or (state != _WRITTEN and not active):
                last = -1
                continue
            if state != _WRITTEN or not self.load(at):
                self.mark(at, at + 1, _ERASED)
                continue
            who = _identity(self.item)
            if self.item[1] == DATA:
                i = max(i, min(at + self.item[2], ENTRIES))
                if any(self.get(entry) != _WRITTEN for entry in range(at, i)):
                    self.erase_item(at)
                    last = -1
                    continue
            last = at
            if active:
                if who in seen:
                    self.erase_item(seen[who])
                seen[who] = at
        if active and last >= 0 and self.load(last) and self.item[1] == DATA:
            # ESP-IDF takes the old version's chunk for a double of this one: when the index of
            # the new version is not there yet, a cut here has cost both.
            at = self.find(self.item[0], DATA, self.item[8:24])
            if at < last:
                self.erase_item(at)

    def _begun(self, i):
        return self.flash.read(self.address + 64 + i * 32, 4) != b"\xff\xff\xff\xff"
