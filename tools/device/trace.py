"""
One device of a golden trace: its steps, asked of the simulated ESP32, over a flash in memory.

What a verb means is what `VERBS` names. Runs on CPython and on MicroPython (plain name, with this
folder and port/ on the path), so that both interpreters can be held to the same answers.
"""

from binascii import hexlify, unhexlify
from hashlib import md5

try:
    from .layout import SIZE, TABLE, table_bytes
    from .port import bootloader
    from .port.esp32 import NVS, Chip, Partition
    from .port.flash import Abort, Flash, PowerCut
except ImportError:  # MicroPython
    import bootloader
    from esp32 import NVS, Chip, Partition
    from flash import Abort, Flash, PowerCut
    from layout import SIZE, TABLE, table_bytes

_BLOCK = 4096


class Device:
    """
    One device of a trace.

    trace: dict as in the file; images: callable, name to bytes. Raises ValueError, LookupError,
    TypeError for a malformed one.
    """

    def __init__(self, trace, images):
        self._images = images
        rows = [tuple(row) for row in trace["table"]]
        size = max([SIZE] + [row[3] + row[4] for row in rows])
        self.flash = Flash(None, trace["idf"], size)
        self.flash.poke(TABLE, table_bytes(rows))
        offsets = {row[0]: row[3] for row in rows}
        for slot, image in trace.get("flashed", {}).items():
            self.flash.poke(offsets[slot], images(image))
        self._uncounted = 0  # operations of NVS steps
        self._partition = self._nvs = None

    def answer(self, verb, *arguments):
        """What the device says to one step, in the form of the trace."""
        before = self.flash.operations
        if verb.startswith("nvs_"):
            self.flash.disarm()
        try:
            return VERBS[verb](self, *arguments)
        except OSError as error:
            return {"errno": error.args[0]}
        except PowerCut:
            return "cut"
        except Abort:
            return "abort"
        finally:
            if verb.startswith("nvs_"):
                self._uncounted += self.flash.operations - before

    def start(self):
        label = bootloader.boot(self.flash)
        chip = Chip(self.flash, label)
        self._partition = type("Partition", (Partition,), {"chip": chip})
        self._nvs = None
        return label

    def poke(self, address, data):
        self.flash.poke(address, unhexlify(data))

    def cut(self, k, how):
        self.flash.disarm()
        if isinstance(how, int):
            self.flash.fault(k, "torn", how)
        else:
            self.flash.fault(k, how)

    def otadata(self):
        row = self.flash.find(1, 0)
        return row and [_hex(self.flash.read(row[3] + at, 32)) for at in (0, _BLOCK)]

    def stat(self):
        return [self.flash.operations - self._uncounted, self.flash.violations]

    def load(self, slot, image):
        partition = self._partition(slot)
        data = self._images(image)
        for at in range(0, len(data), _BLOCK):
            partition.writeblocks(at // _BLOCK, _padded(data[at : at + _BLOCK], _BLOCK))

    def writeblocks(self, slot, block, image, begin, length, offset):
        data = self._piece(image, begin, length)
        self._partition(slot).writeblocks(block, data, *([] if offset is None else [offset]))

    def readblocks(self, slot, block, length, offset):
        buf = bytearray(length)
        self._partition(slot).readblocks(block, buf, *([] if offset is None else [offset]))
        return _hex(md5(buf).digest())

    def ioctl(self, slot, op, block=0):
        return self._partition(slot).ioctl(op, block)

    def erase(self, slot, block):
        return self.ioctl(slot, 6, block)

    def set_boot(self, slot):
        self._partition(slot).set_boot()

    def mark_valid(self):
        self._partition.mark_app_valid_cancel_rollback()

    def boot(self):
        return self._partition(Partition.BOOT).info()[4]

    def next(self):
        return self._partition(Partition.RUNNING).get_next_update().info()[4]

    def info(self, slot):
        return list(self._partition(slot).info())

    def find(self, *arguments):
        return [partition.info()[4] for partition in self._partition.find(*arguments)]

    def nvs(self):
        """The namespace of all nvs_* steps, opened by the first of them after a start."""
        if self._nvs is None:
            self._nvs = type("NVS", (NVS,), {"chip": self._partition.chip})("ota")
        return self._nvs

    def set_blob(self, key, image, begin, length):
        self.nvs().set_blob(key, self._piece(image, begin, length))

    def get_blob(self, key, size):
        buf = bytearray(size)
        return [self.nvs().get_blob(key, buf), _hex(md5(buf).digest())]

    def _piece(self, image, begin, length):
        return _padded(self._images(image)[begin : begin + length], length)


def _padded(data, length):
    return data + b"\xff" * (length - len(data))


def _hex(data):
    return hexlify(data).decode()


VERBS = {
    "start": Device.start,
    "poke": Device.poke,
    "cut": Device.cut,
    "otadata": Device.otadata,
    "stat": Device.stat,
    "load": Device.load,
    "writeblocks": Device.writeblocks,
    "readblocks": Device.readblocks,
    "ioctl": Device.ioctl,
    "erase": Device.erase,
    "set_boot": Device.set_boot,
    "mark_valid": Device.mark_valid,
    "boot": Device.boot,
    "next": Device.next,
    "info": Device.info,
    "find": Device.find,
    "nvs_set_i32": lambda device, key, value: device.nvs().set_i32(key, value),
    "nvs_get_i32": lambda device, key: device.nvs().get_i32(key),
    "nvs_set_blob": Device.set_blob,
    "nvs_get_blob": Device.get_blob,
    "nvs_erase": lambda device, key: device.nvs().erase_key(key),
    "nvs_commit": lambda device: device.nvs().commit(),
}
