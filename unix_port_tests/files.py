"""
Files to download that take no room in the heap, and their digests.
"""

from hashlib import md5

import images

_ROW = 512
_RAMP = bytes(range(256)) * 3


def sign_of(parts):
    """The sign of a file as a command tells it. parts: iterable of bytes."""
    digest = md5()
    for part in parts:
        digest.update(part)
    return "".join("%02x" % byte for byte in digest.digest())


class File:
    """A file that looks like an application, made as it is read. size: bytes; seed: 0 to 255."""

    def __init__(self, size, seed=0):
        self.size = size
        self._seed = seed
        self.sign = sign_of(self.parts(0))

    def row(self, at):
        """The 512 bytes that begin at byte `at`, less at the end of the file."""
        seed = self._seed + at // _ROW * 7 & 0xFF
        row = _RAMP[seed : seed + _ROW]
        if not at:
            row = bytes(images.head()) + row[288:]
        return row[: self.size - at]

    def parts(self, begin, end=None):
        """Iterates over the bytes from begin to end."""
        end = self.size if end is None else end
        for at in range(begin // _ROW * _ROW, end, _ROW):
            yield self.row(at)[max(begin - at, 0) : end - at]


class Image(File):
    """A file of these bytes."""

    def __init__(self, content):
        self.size = len(content)
        self.sign = sign_of([content])
        self._content = content

    def row(self, at):
        return self._content[at : at + _ROW]
