"""
Tests of ota/download.py, class Upgrade: whole blocks that are there when they are read, as from a
fast server. They go a shorter way, which must end where the long one would.

Source of the expected values: the codes in docs/protocol.md.
"""

import images
from fakes import END, Socket
from files import File, Image
from upgrades import UpgradeCase

_BLOCK = 4096
_UNIT = 65536


class BlockCase(UpgradeCase):
    def setUp(self):
        super().setUp()
        Socket.fills = True

    def tearDown(self):
        super().tearDown()
        Socket.fills = False

    def serve_blocks(self, file, begin=0, end=None, asked=None, last=END):
        # asked: the answer is to a Range that begins there.
        if asked:
            text = b"206 X\r\nContent-Range: bytes %d-%d/%d" % (asked, file.size - 1, file.size)
        else:
            text = b"200 OK\r\nContent-Length: %d" % file.size
        self.net.script(b"HTTP/1.0 " + text + b"\r\n\r\n", file.parts(begin, end), last)

    def test_every_byte_lands_in_the_slot(self):
        for size in (3 * _BLOCK, 3 * _BLOCK + 100):
            file = File(size)
            self.begin(file)
            self.serve_blocks(file)
            self.run_job()
            self.assertInSlot(file)

    def test_bytes_behind_the_end_are_not_taken(self):
        file = File(2 * _BLOCK + 100)
        self.begin(file)
        parts = file.parts(0)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", parts, [b"x" * 512] * 9, END)
        self.run_job()
        self.assertEqual(len(self.net.sockets), 1)
        self.assertInSlot(file)

    def test_from_the_beginning_in_the_place_of_a_range(self):
        file = File(_UNIT + 2 * _BLOCK + 100)
        self.begin(file)
        self.serve_blocks(file, 0, _UNIT + _BLOCK)
        self.serve_blocks(file)
        self.run_job()
        self.assertEqual(self.ranges(), [0, _UNIT + _BLOCK])
        self.assertInSlot(file)

    def test_from_the_beginning_after_a_restart(self):
        file = File(_UNIT + 2 * _BLOCK)
        self.begin(file)
        self.serve_blocks(file, 0, _UNIT + _BLOCK, last=60000)
        while self.job.done < _UNIT + _BLOCK:
            self.job.step()
        del self.net.sockets[:]
        self.begin(file)
        self.serve_blocks(file)
        self.run_job()
        self.assertEqual(self.ranges(), [_UNIT])
        self.assertInSlot(file)

    def test_each_connection_that_brings_something_is_a_new_beginning(self):
        file = File(8 * _BLOCK)
        self.begin(file, tries=2)
        for at in range(0, file.size, 2 * _BLOCK):
            self.serve_blocks(file, at, at + 2 * _BLOCK, asked=at)
        self.run_job()
        self.assertEqual(self.ranges(), list(range(0, file.size, 2 * _BLOCK)))
        self.assertInSlot(file)

    def test_reset_between_two_blocks_is_resumed(self):
        file = File(4 * _BLOCK)
        self.begin(file)
        self.serve_blocks(file, 0, 2 * _BLOCK, last=OSError(104))
        self.serve_blocks(file, 2 * _BLOCK, asked=2 * _BLOCK)
        self.run_job()
        self.assertEqual(self.ranges(), [0, 2 * _BLOCK])
        self.assertInSlot(file)

    def test_patience_begins_anew_with_each_pause(self):
        # 40 s in all, of which stall_s allows 30 in a row.
        file = File(6 * _BLOCK)
        self.begin(file)
        self.net.script(b"HTTP/1.0 200 OK\r\n\r\n", self.with_pauses(file), END)
        self.run_job(most=5000)
        self.assertEqual(len(self.net.sockets), 1)

    def with_pauses(self, file):
        for at in range(0, file.size, _BLOCK):
            yield 8000
            for part in file.parts(at, at + _BLOCK):
                yield part

    def test_image_of_an_application(self):
        file = Image(bytes(images.application(2 * _BLOCK + 160)))
        self.begin(file)
        self.serve_blocks(file)
        self.assertEqual(self.run_job()[-1], 96)
