"""What the tests of ota/download.py, class Upgrade, and of ota/inflate.py share."""

from esp32 import Partition
from fakes import END, Case, Settings, data
from journals import read_journal

from ota import drop
from ota.download import Upgrade
from ota.protocol import OTAError, command

_BLOCK = 4096
_ROW = 512

_block = memoryview(bytearray(4608))


def other():
    return Partition(Partition.RUNNING).get_next_update()


class UpgradeCase(Case):
    def begin(self, file, size=-1, sign=None, version="2.0", **settings):
        # As the agent does it. size: by default that of the file.
        self.job = None  # the heap has room for one
        agent = Settings()
        agent.block = _block
        for name in settings:
            setattr(agent, name, settings[name])
        body = data(version, sign or file.sign, size=file.size if size == -1 else size)
        from ota.slot import other

        drop("slot")  # as the agent does
        self.command = command("m1", body, True)
        self.journal = read_journal()
        self.job = Upgrade(agent, self.command, self.journal, other())
        return self.job

    def serve(self, file, begin=0, end=None, last=END, length=None):
        # The next connection brings these bytes; a part of the file as the answer to a Range.
        if begin:
            text = b"206 X\r\nContent-Range: bytes %d-%d/%d" % (begin, file.size - 1, file.size)
        else:
            text = b"200 OK\r\nContent-Length: %d" % (length or file.size)
        parts = file.parts(begin, end)
        self.net.script(b"HTTP/1.0 " + text + b"\r\n\r\n", parts, last)

    def run_job(self, until=96, most=500):
        # Steps until that progress. Returns all progress on the way.
        found = []
        for _ in range(most):
            found.append(self.job.step())
            if found[-1] >= until:
                return found
            self.clock.advance(20)
        self.fail("never ends: %s" % found[-3:])

    def assertFails(self, code):
        try:
            self.run_job()
        except OTAError as e:
            self.job.close()
            self.assertEqual(e.code, code)
        else:
            self.fail("came through")

    def assertInSlot(self, file):
        """Every byte of it, and erased ones behind it to the end of the block."""
        slot = other()
        buf = bytearray(_ROW)
        end = (file.size + _BLOCK - 1) // _BLOCK * _BLOCK
        for at in range(0, end, _ROW):
            slot.readblocks(at // _BLOCK, buf, at % _BLOCK)
            expected = file.row(at) if at < file.size else b""
            expected += b"\xff" * (_ROW - len(expected))
            self.assertTrue(buf == expected, at)

    def ranges(self):
        """Where each connection began, as asked for."""
        found = []
        for sock in self.net.sockets:
            text = sock.sent.decode()
            at = text.find("Range: bytes=")
            found.append(0 if at < 0 else int(text[at + 13 :].split("-")[0]))
        return found
