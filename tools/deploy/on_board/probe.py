# Run by the board: what it is, and what lies on it. ASKED: paths. Changes nothing.
import gc
import hashlib
import json
import os
import sys
from binascii import crc32, hexlify


def digest(path):
    try:
        with open(path, "rb") as f:
            h = hashlib.sha256()
            b = bytearray(512)
            while n := f.readinto(b):
                h.update(memoryview(b)[:n])
        return hexlify(h.digest()).decode()
    except OSError:
        return None


def there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def has(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False


def table():
    from esp32 import Partition

    found = Partition.find(Partition.TYPE_APP) + Partition.find(Partition.TYPE_DATA)
    return [p.info()[:5] for p in found], Partition(Partition.RUNNING).info()[4]


# The state of the boot record that counts, as boot.py reads it; None = none counts.
def state():
    from esp32 import Partition

    newest = (0, None)
    for p in Partition.find(Partition.TYPE_DATA, subtype=0):
        for sector in (0, 1):
            e = bytearray(32)
            p.readblocks(sector, e, 0)
            seq = int.from_bytes(e[:4], "little")
            s = int.from_bytes(e[24:28], "little")
            fits = crc32(e[:4], 0xFFFFFFFF) == int.from_bytes(e[28:], "little")
            if fits and s not in (3, 4) and seq > newest[0]:
                newest = (seq, s)
    return newest[1]


out = {"name": sys.implementation.name, "version": sys.implementation.version[:3]}
out["mpy"] = getattr(sys.implementation, "_mpy", 0)
out["machine"] = os.uname()[4] if hasattr(os, "uname") else sys.platform
out["files"] = {p: digest(p) for p in ASKED}  # noqa: F821 (comes before this text)
out["sizes"] = {p: os.stat(p)[6] for p in ASKED if there(p)}  # noqa: F821
out["hides"] = [p for p in ("/ota", "/ota.py", "/ota.mpy") if there(p)]
try:
    import ota

    # A frozen one has no place in the filesystem.
    out["frozen"] = "lib/ota" not in ota.__file__ and not out["hides"]
    sys.modules.pop("ota")
except (ImportError, AttributeError):
    out["frozen"] = False
v = os.statvfs("/")
out["free"] = v[1] * v[3]
out["modules"] = [n for n in ("umqtt.simple", "requests") if has(n)]
gc.collect()
out["heap"] = gc.mem_free()
if has("esp32"):
    out["table"], out["running"] = table()
    out["state"] = state()
answer(json.dumps(out))  # noqa: F821
