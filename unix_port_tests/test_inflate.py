"""
Tests of ota/inflate.py: a .gz on its way into the slot. Whole upgrades: tests/test_upgrade_gz.py.

Source of the expected values: RFC 1952 for the header; the codes in docs/protocol.md.
"""

import sys
from binascii import crc32

import images
from fakes import Socket
from files import File
from upgrades import UpgradeCase, other

_BLOCK = 4096


class Stub:
    """The module micropython without RingIO."""


class Gz(File):
    """An image as .gz in one stored block, for MicroPython inflates only; made as it is read."""

    def __init__(self, plain, spoil, told):
        n = len(plain)
        size = n.to_bytes(4, "little")
        head = b"\x1f\x8b\x08\x04\0\0\0\0\2\xff\x09\0MP\x05\0\x09" + told.to_bytes(4, "little")
        head += b"\1" + (spoil or size[:2]) + (n ^ 0xFFFF).to_bytes(2, "little")
        self._pieces = head, memoryview(plain), crc32(plain).to_bytes(4, "little") + size
        super().__init__(len(head) + n + 8)

    def row(self, at):
        row = b""
        for piece in self._pieces:
            if at < len(piece) and len(row) < 512:
                row += piece[at : at + 512 - len(row)]
                at = 0
            else:
                at -= len(piece)
            at = max(at, 0)
        return row


class GzCase(UpgradeCase):
    def pack(self, size=_BLOCK + 16, spoil=b"", told=None):
        # The .gz of an image. spoil: in the place of its length; told: of the size in the header.
        self.plain = images.application(size)
        self.file = Gz(self.plain, spoil, told or size)
        self.begin(self.file)

    def assertInflated(self):
        buf = bytearray(512)
        for at in range(0, len(self.plain), 512):
            other().readblocks(at // _BLOCK, buf, at % _BLOCK)
            piece = self.plain[at : at + 512]
            self.assertTrue(buf[: len(piece)] == piece, at)

    def test_it_comes_into_the_slot(self):
        self.pack()
        self.serve(self.file)
        self.run_job()
        self.assertInflated()

    def test_it_is_noticed_when_a_block_is_there_at_once(self):
        Socket.fills = True
        try:
            self.test_it_comes_into_the_slot()
        finally:
            Socket.fills = False

    def test_image_of_whole_blocks(self):
        self.pack(_BLOCK)
        self.serve(self.file)
        self.run_job()
        self.assertInflated()

    def test_image_that_is_smaller_than_a_block(self):
        self.pack(640)
        self.serve(self.file)
        self.run_job()
        self.assertInflated()

    def test_connection_that_breaks_is_resumed(self):
        self.pack()
        half = self.file.size // 2
        self.serve(self.file, 0, half)
        self.serve(self.file, half)
        self.run_job()
        self.assertEqual(self.ranges(), [0, half])
        self.assertInflated()

    def test_without_deflate_or_ring_is_421(self):
        for name, stub in (("deflate", None), ("micropython", Stub())):
            self.pack()
            self.serve(self.file)
            real, sys.modules[name] = sys.modules.get(name), stub
            try:
                self.assertFails(421)
            finally:
                del sys.modules[name]
                if real:
                    sys.modules[name] = real

    def test_size_that_does_not_fit_is_420(self):
        self.pack(told=0x200000)
        self.serve(self.file)
        self.assertFails(420)

    def test_damaged_is_425_after_a_second_round(self):
        self.pack(spoil=b"\1\1")
        self.serve(self.file)
        self.serve(self.file)
        self.assertFails(425)
        self.assertEqual(self.ranges(), [0, 0])
