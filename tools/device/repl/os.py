"""
A board's `os`: that of the unix port, but the filesystem is as large as its partition, and files
take whole blocks. For devices with a REPL.
"""

import sys

import uos
from uos import *  # noqa: F403

_BLOCK = 4096
_HOST = "/.host"  # see tools/device/supervisor.py


def ilistdir(path="."):
    """All but the host's files."""
    return iter([row for row in uos.ilistdir(path) if row[0] != _HOST[1:]])


def rename(old, new):
    """The unix port's takes two whole paths below a root for the same one, so it goes there."""
    here = uos.getcwd()
    paths = [name if name[:1] == "/" else here.rstrip("/") + "/" + name for name in (old, new)]
    uos.chdir("/")
    try:
        uos.rename(*(path.lstrip("/") for path in paths))
    finally:
        uos.chdir(here)


def uname():
    """As a generic ESP32 module calls itself."""
    release = "%d.%d.%d" % sys.implementation.version[:3]
    machine = "Generic ESP32 module with ESP32"
    return ("esp32", "esp32", release, "v%s on 2026-01-01" % release, machine)


def listdir(path="."):
    return [row[0] for row in ilistdir(path)]


def _blocks(folder):
    used = 1
    for name, *_ in ilistdir(folder):
        info = uos.stat(folder + name)
        is_folder = info[0] & 0x4000
        used += _blocks(folder + name + "/") if is_folder else -(-info[6] // _BLOCK)
    return used


def statvfs(path):
    """(block size, same, blocks, free, free, ...) of the partition `vfs`."""
    from esp32 import Partition

    (vfs,) = Partition.find(Partition.TYPE_DATA, label="vfs")
    blocks = vfs.info()[3] // _BLOCK
    free = max(0, blocks - _blocks("/"))
    return (_BLOCK, _BLOCK, blocks, free, free, 0, 0, 0, 0, 255)
