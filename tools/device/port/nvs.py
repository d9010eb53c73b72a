"""
Non-volatile storage in ESP-IDF's own format and order of writes: what a power cut leaves hangs
on both.

`Storage` is the partition as it is mounted at a start, `Namespace` is what `esp32.NVS` shows. One
page is always kept free: when the last one is full, the page with the least in it is copied there.
A new value is written before its old one is erased. A blob is chunks, then their index, in two
versions in turns. Source: ESP-IDF nvs_pagemanager.cpp, nvs_storage.cpp, nvs_api.cpp (5.5).
"""

import struct
from binascii import crc32

try:
    from .nvspage import ACTIVE, ANY, CHUNK, DATA, ENTRIES, FREEING, FULL, I32, INDEX, U8, Page
except ImportError:  # MicroPython: this folder is on the path
    from nvspage import ACTIVE, ANY, CHUNK, DATA, ENTRIES, FREEING, FULL, I32, INDEX, U8, Page

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


_SECTOR = const(4096)
_ONES = const(0xFFFFFFFF)

_NOT_FOUND = const(0x1102)
_NO_SPACE = const(0x1105)
_KEY_TOO_LONG = const(0x1109)
_INVALID_LENGTH = const(0x110C)
_TOO_LONG = const(0x110E)


class Storage:
    """The NVS partition as mounted at a start. flash: Flash; row: its row in the table."""

    def __init__(self, flash, row):
        self._flash = flash
        self._row = row
        self.item = bytearray(32)
        if not self._mount():
            # No free page, as MicroPython's main.c does: the whole storage is lost.
            for address in range(row[3], row[3] + row[4], _SECTOR):
                flash.erase(address)
            self._mount()

    def _mount(self):
        # False when no page is free.
        self._pages = pages = []
        self._free = free = []
        for address in range(self._row[3], self._row[3] + self._row[4], _SECTOR):
            page = Page(self._flash, address, self.item)
            if not page.valid():
                free.append(page)
                continue
            at = 0
            while at < len(pages) and pages[at].seq <= page.seq:
                at += 1
            pages.insert(at, page)
        if not pages:
            self._seq = 0
            self._activate()
            return True
        self._seq = pages[-1].seq + 1
        self._drop_old()
        for page in pages:
            if page.state == FREEING:  # the cut fell into a copy: once again, from the start
                if pages[-1].state == ACTIVE:
                    pages[-1].erase()
                    free.append(pages.pop())
                self._activate()
                self._move(page)
                break
        if not free:
            return False
        self._drop_orphans()
        return True

    def _drop_old(self):
        # A new value was written into the last page, its old one still stands in a page before.
        item = None
        for _ in self.items(ANY, ANY, self._pages[-1:]):
            item = bytes(self.item)
        if item is None:
            return
        for page in self._pages[:-1]:
            if page.state != FREEING:
                at = page.find(item[0], item[1], item[8:24], 0, item[3])
                if at >= 0:
                    page.erase_item(at)
                    return

    def _drop_orphans(self):
        # Indexes whose chunks are not all there, then chunks without an index.
        whole = []
        for page, at in self.items(ANY, INDEX):
            item = bytes(self.item)
            size, chunks, version = struct.unpack_from("<IBB", item, 24)
            for i in range(chunks):
                found, _ = self.find(item[0], DATA, item[8:24], version + i)
                size -= struct.unpack_from("<H", self.item, 24)[0] if found else _ONES
            if size:
                page.erase_item(at)
            else:
                whole.append((item[0], item[8:24], version, version + chunks))
        for page, at in self.items(ANY, DATA):
            space, key, chunk = self.item[0], self.item[8:24], self.item[3]
            if not any(w[0] == space and w[1] == key and w[2] <= chunk < w[3] for w in whole):
                page.erase_item(at)

    def items(self, space, kind, pages=None):
        """Each matching (page, index) in turn; the item is then in self.item."""
        for page in pages or self._pages:
            at = page.find(space, kind)
            while at >= 0:
                after = at + max(1, self.item[2])
                yield page, at
                at = page.find(space, kind, None, after)

    def find(self, space, kind, key, chunk=ANY, version=ANY):
        """(page, index) of the first such item, the item is then in self.item; (None, -1)."""
        for page in self._pages:
            at = page.find(space, kind, key, 0, chunk, version)
            if at >= 0:
                return page, at
        return None, -1

    def write(self, space, kind, key, data, chunk=ANY):
        """
        Append an item to the last page, or to the next one. Raises OSError(-4357) when all pages
        are full.
        """
        if not self._pages[-1].write_item(space, kind, key, data, chunk):
            self.turn()
            if not self._pages[-1].write_item(space, kind, key, data, chunk):
                raise OSError(-_NO_SPACE)

    def room(self):
        return self._pages[-1].room()

    def capacity(self):
        """Longest blob in bytes: one page stays free."""
        return (self._row[4] // _SECTOR - 1) * CHUNK

    def turn(self):
        """
        Go on in a new page; when only one is free, empty the page with the least in it into that
        one.
        """
        if self._pages[-1].state == ACTIVE:
            self._pages[-1].set_state(FULL)
        if len(self._free) < 2:
            least = min(self._pages, key=Page.used)
            if least.used() == ENTRIES:
                raise OSError(-_NO_SPACE)
            least.set_state(FREEING)
            self._activate()
            self._move(least)
        else:
            self._activate()

    def _activate(self):
        page = self._free[0]
        if not page.blank():
            page.erase()
        self._free.pop(0)
        page.seq = self._seq
        self._seq += 1
        self._pages.append(page)

    def _move(self, page):
        page.copy_to(self._pages[-1])
        page.erase()
        self._pages.remove(page)
        self._free.append(page)


class Namespace:
    """
    One namespace of a Storage: what `esp32.NVS` does, errors included (nvs_api.cpp,
    ports/esp32/esp32_nvs.c).
    """

    def __init__(self, storage, name):
        """
        name: str of at most 15 characters; made when it is new. Raises OSError(-4361, -4357).
        """
        self._storage = storage
        key = _key(name)
        page, _ = storage.find(0, U8, key)
        if page:
            self._space = storage.item[24]
            return
        _check(name)
        taken = [storage.item[24] for _ in storage.items(0, U8)]
        self._space = 1
        while self._space in taken:
            self._space += 1
        storage.write(0, U8, key, bytes((self._space,)))

    def set_i32(self, key, value):
        """
        A value that is already there writes nothing.

        value: signed, 32 bits; else OverflowError. Raises OSError: -4361 key too long, -4357 no
        space.
        """
        if not -0x80000000 <= value < 0x80000000:
            raise OverflowError  # MicroPython's struct would cut it, the ESP32 does not
        data = struct.pack("<i", value)
        old = self._old(key, I32)
        if old and old[1] == I32 and old[24:28] == data:
            return
        _check(key)
        self._storage.write(self._space, I32, _key(key), data)
        if old:
            self._erase(old)

    def get_i32(self, key):
        """Raises OSError(-4354): absent, or of the other type."""
        self._find(I32, _key(key))
        return struct.unpack_from("<i", self._storage.item, 24)[0]

    def set_blob(self, key, value):
        """
        value: buffer. Raises OSError: -4361 key too long, -4366 value too long, -4357 no space.
        """
        value = memoryview(value)
        old = self._old(key, INDEX)
        version = 0
        if old and old[1] == INDEX:
            if self._same(old, value):
                return
            version = 0x80 - old[29]
        if len(value) > self._storage.capacity():
            raise OSError(-_TOO_LONG)
        _check(key)
        self._write_blob(_key(key), value, version)
        if old:
            self._erase(old)

    def get_blob(self, key, buf):
        """
        Fill `buf`; length of the blob. Raises OSError: -4354 absent or of the other type, -4364
        buf too small.
        """
        self._find(INDEX, _key(key))
        index = bytes(self._storage.item)
        size = struct.unpack_from("<I", index, 24)[0]
        if len(buf) == 0:
            return size  # an empty buffer is a null pointer: asks for the length
        if len(buf) < size:
            raise OSError(-_INVALID_LENGTH)
        view = memoryview(buf)
        for page, at, begin, end, sums in self._chunks(index):
            page.flash.readinto(page.address + 96 + at * 32, view[begin:end])
            if crc32(view[begin:end], _ONES) != sums:
                raise OSError(-_NOT_FOUND)
        return size

    def erase_key(self, key):
        """Raises OSError(-4354)."""
        self._find(ANY, _key(key))
        self._erase(bytes(self._storage.item))

    def commit(self):
        """Writes nothing: every call above has already written."""

    def _find(self, kind, key, chunk=ANY, version=ANY):
        page, at = self._storage.find(self._space, kind, key, chunk, version)
        if not page:
            raise OSError(-_NOT_FOUND)
        return page, at

    def _old(self, key, kind):
        # The item that a write replaces, of that type or of the other one; None for a new key.
        for wanted in (kind, ANY):
            page, _ = self._storage.find(self._space, wanted, _key(key))
            if page:
                return bytes(self._storage.item)
        return None

    def _erase(self, item):
        # The first of that type is the old one, wherever a new page has moved it; of blobs, the
        # one of that version.
        key = item[8:24]
        if item[1] == INDEX:
            page, at = self._find(INDEX, key, ANY, item[29])
            page.erase_item(at)
            for page, at, _, _, _ in self._chunks(item):
                page.erase_item(at)
        else:
            page, at = self._find(item[1], key)
            page.erase_item(at)

    def _chunks(self, index):
        # Each chunk of a blob: page, entry, begin and end in the blob, checksum.
        begin = 0
        for i in range(index[28]):
            page, at = self._find(DATA, index[8:24], index[29] + i)
            size, _, sums = struct.unpack_from("<HHI", self._storage.item, 24)
            yield page, at, begin, begin + size, sums
            begin += size

    def _same(self, index, value):
        if struct.unpack_from("<I", index, 24)[0] != len(value):
            return False
        return all(
            crc32(value[at:end], _ONES) == sums for _, _, at, end, sums in self._chunks(index)
        )

    def _write_blob(self, key, value, version):
        storage = self._storage
        chunks = at = 0
        while True:
            left = len(value) - at
            room = storage.room()
            if not chunks and room < left + (not left) and room < CHUNK // 10:
                storage.turn()  # no small first chunk
                if storage.room() != room:
                    continue
                raise OSError(-_NO_SPACE)
            if not room:
                raise OSError(-_NO_SPACE)
            size = min(left, room)
            storage.write(self._space, DATA, key, value[at : at + size], version + chunks)
            chunks += 1
            at += size
            if at < len(value) or room - size < 32:
                storage.turn()
            if at == len(value):
                break
        index = struct.pack("<IBBH", len(value), chunks, version, 0xFFFF)
        storage.write(self._space, INDEX, key, index)


def _key(key):
    # As it stands in an item: cut at 15, so that a longer one finds the item that begins like it.
    return (key.encode()[:15] + bytes(16))[:16]


def _check(key):
    if len(key.encode()) > 15:
        raise OSError(-_KEY_TOO_LONG)
