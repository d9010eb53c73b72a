"""
What can go wrong with the flash chip: faults, as OTA_SIM_FAULT and `Flash.fault()` have them.

"K:KIND" or "K:KIND:NUMBER", several separated by commas. K counts the operations that this flash
file was ever asked for, from 0, so a fault fires once, whichever process gets there. Due bits are
those that the operation would change; bits count from the lowest one of the first byte that the
operation covers, and a number that is too large is taken modulo how many there are.

A power cut
  before    before it               after     after it
  torn:N    only the first N bytes are done
  tail:N    only the bytes from N on are done
  random:S  a random subset of the due bits is done, seed S
  only:N    one due bit is done, the N-th
  but:N     all due bits but the N-th are done
  spoil:S   the sector around it holds random bytes, seed S
No cut
  skip      nothing is done, success is reported
  error:E   nothing is done, OSError(-E); default 24577
  stuck:N   then bit N is inverted, and keeps that value whatever is erased and programmed
  flip:N    the next read of the byte with bit N, in this process, sees that bit inverted
  unread:E  the next read of the first byte, in this process, is OSError(-E); default 24577
  trace     no fault: this operation and all later ones are noted, in each process

One operation can have one of before to error, the last one named, and any number of the rest.

Files beside the flash file: `.stuck`, a line "ADDRESS BIT VALUE" for each stuck bit; `.trace`, a
line "K E ADDRESS" for each erase, "K P ADDRESS LENGTH" for each program, all decimal, also for one
that a fault hits.
"""

import hashlib

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        return value


_SECTOR = const(4096)
_PAGE = const(256)
_NEVER = const(0x3FFFFFFF)
_OP_FAIL = const(24577)  # ESP_ERR_FLASH_OP_FAIL

_NOTHING = ("before", "error", "skip")
_MARKS = ("stuck", "flip", "unread")
# Kinds, with the number when it is left out; None: it must not be.
_KINDS = {
    "before": 0,
    "after": 0,
    "torn": None,
    "tail": None,
    "random": None,
    "only": None,
    "but": None,
    "spoil": None,
    "skip": 0,
    "error": _OP_FAIL,
    "stuck": None,
    "flip": None,
    "unread": _OP_FAIL,
    "trace": 0,
}


def parse(text):
    """The faults in a str, a list of (K, kind, number). Raises ValueError: malformed."""
    faults = []
    for fault in text.split(","):
        part = fault.split(":")
        if not 2 <= len(part) <= 3 or not all(number.isdigit() for number in part[::2]):
            raise ValueError("a fault is K:KIND or K:KIND:NUMBER, not '%s'" % fault)
        number = _number(part[1], int(part[2]) if part[2:] else None)
        faults.append((int(part[0]), part[1], number))
    return faults


def _number(kind, number):
    if kind not in _KINDS:
        raise ValueError("no fault is called '%s', only %s" % (kind, ", ".join(sorted(_KINDS))))
    if number is None:
        number = _KINDS[kind]
    if number is None:
        raise ValueError("a fault '%s' needs a number, K:%s:NUMBER" % (kind, kind))
    return number


class Faults:
    """
    The faults of one flash.Flash, which asks at each operation from `flash.due` on, and at each
    read while `flash.marks` has some. What is stuck already is read from its file.
    """

    def __init__(self, flash):
        self._flash = flash
        self._armed = {}  # operation: list of (kind, number)
        self._traced = _NEVER  # from this operation on
        self._trace = None
        self._stuck = []  # (address, bit, value)
        flash.marks = []  # (address, bit, None) or (address, None, errno)
        if flash.path:
            try:
                with open(flash.path + ".stuck") as file:
                    self._stuck = [tuple(map(int, line.split())) for line in file]
            except OSError:
                pass
            self.settle()
        self._plan()

    def close(self):
        if self._trace:
            self._trace.close()
            self._trace = None

    def arm_all(self, text):
        """Those in a str or None. Raises ValueError."""
        for fault in parse(text) if text else ():
            self.arm(*fault)

    def arm(self, at, kind, number):
        """One, at the operation that is counted so; too late: none. Raises ValueError."""
        number = _number(kind, number)
        if kind == "trace":
            if not self._flash.path:
                raise ValueError("a chip without a file has no trace")
            self._traced = min(at, self._traced)
        elif at >= self._flash.operations:
            self._armed.setdefault(at, []).append((kind, number))
        self._plan()

    def over(self):
        """True when nothing will come any more."""
        return self._flash.due == _NEVER

    def disarm(self):
        """Forget those that have not shown, and the trace."""
        self._armed.clear()
        self._flash.marks.clear()
        self._traced = _NEVER
        self.close()
        self._plan()

    def _plan(self):
        self._flash.due = 0 if self._stuck else min([self._traced] + list(self._armed))

    def operate(self, address, data, pages):
        """
        One operation, as Flash has it. False: it is left to Flash, there is nothing special.

        Raises PowerCut, OSError.
        """
        flash = self._flash
        at = flash.operations - 1
        if at >= self._traced:
            self._note(at, address, data, pages)
        faults = self._armed.pop(at, None)
        if faults:
            self._plan()
        elif not self._stuck:
            return False
        kind = number = None
        for fault in faults or ():
            if fault[0] not in _MARKS:
                kind, number = fault
        if kind not in _NOTHING:
            self._do(address, data, pages, kind, number)
        if kind == "spoil":
            self._spoil(address, number)
        for fault in faults or ():
            if fault[0] in _MARKS:
                self._mark(address, _SECTOR if pages else len(data), *fault)
        flash.save()
        if kind == "error":
            raise OSError(-number)
        if kind and kind != "skip":
            flash.cut()
        return True

    def reading(self, address, buf):
        """The marks on what was read into `buf`. Raises OSError."""
        marks = self._flash.marks
        for mark in list(marks):
            place = mark[0] - address
            if 0 <= place < len(buf):
                marks.remove(mark)
                if mark[1] is None:
                    raise OSError(-mark[2])
                buf[place] ^= 1 << mark[1]

    def settle(self):
        """What is stuck has its value, whoever wrote to the file."""
        file = self._flash.file
        for address, bit, value in self._stuck:
            file.seek(address)
            byte = file.read(1)[0]
            file.seek(address)
            file.write(bytes([byte & ~(1 << bit) | value << bit]))

    def _note(self, at, address, data, pages):
        if not self._trace:
            # Unbuffered, as this process may die hard.
            self._trace = open(self._flash.path + ".trace", "ab", 0)
        if pages:
            line = "%d E %d\n" % (at, address)
        else:
            line = "%d P %d %d\n" % (at, address, len(data))
        self._trace.write(line.encode())

    def _do(self, address, data, pages, kind, number):
        # Page by page: a sector at once would be too much for the heap of a device.
        flash = self._flash
        file = flash.file
        size = len(data)
        places = range(address, address + (pages or 1) * size, size)
        if kind in ("only", "but"):
            due = sum(_ones(self._wish(at, data, pages)[1], size) for at in places)
            number %= due or 1
        for at in places:
            old, due, bad = self._wish(at, data, pages)
            done = due
            if kind in ("torn", "tail"):
                first = min(max(number - (at - address), 0), size)
                part = (1 << first * 8) - 1
                if kind == "tail":
                    part ^= (1 << size * 8) - 1
                done &= part
                bad &= part
            elif kind == "random":
                done ^= due & _noise(number, (at - address) // size, size)
            elif kind in ("only", "but"):
                one = _nth(due, size, number)
                number -= _ones(due, size)
                done = one if kind == "only" else due ^ one
            if bad:
                flash.violated(at, sum(1 for byte in bad.to_bytes(size, "little") if byte))
            file.seek(at)
            file.write((old ^ done).to_bytes(size, "little"))

    def _wish(self, address, data, pages):
        # As numbers: what is there, the due bits, those that a program cannot make 1. Those that
        # cannot change because they are stuck are in neither.
        size = len(data)
        file = self._flash.file
        file.seek(address)
        old = int.from_bytes(file.read(size), "little")
        new = int.from_bytes(data, "little")
        bad = 0
        stuck = self._stuck_in(address, size)
        if not pages:
            bad = new ^ new & old
            bad ^= bad & stuck
            new &= old
        due = old ^ new
        return old, due ^ due & stuck, bad

    def _stuck_in(self, address, size):
        bits = 0
        for place, bit, _ in self._stuck:
            if address <= place < address + size:
                bits |= 1 << (place - address) * 8 + bit
        return bits

    def _spoil(self, address, seed):
        address -= address % _SECTOR
        file = self._flash.file
        file.seek(address)
        for page in range(_SECTOR // _PAGE):
            file.write(_noise(seed, page, _PAGE).to_bytes(_PAGE, "little"))
        self.settle()

    def _mark(self, address, size, kind, number):
        if kind == "unread":
            self._flash.marks.append((address, None, number))
            return
        bit = number % (size * 8)
        address += bit // 8
        bit %= 8
        if kind == "flip":
            self._flash.marks.append((address, bit, None))
        elif not self._stuck_in(address, 1) >> bit & 1:
            self._stick(address, bit)

    def _stick(self, address, bit):
        flash = self._flash
        flash.file.seek(address)
        value = flash.file.read(1)[0] >> bit & 1 ^ 1
        self._stuck.append((address, bit, value))
        if flash.path:
            with open(flash.path + ".stuck", "a") as file:
                file.write("%d %d %d\n" % self._stuck[-1])
        self.settle()
        self._plan()


def _ones(bits, size):
    # How many there are in a number of `size` bytes.
    return sum(bin(byte).count("1") for byte in bits.to_bytes(size, "little"))


def _nth(bits, size, n):
    # The n-th 1 in a number of `size` bytes, alone; 0 when there is none.
    for place, byte in enumerate(bits.to_bytes(size, "little")):
        for bit in range(8):
            if byte >> bit & 1:
                if n == 0:
                    return 1 << place * 8 + bit
                n -= 1
    return 0


def _noise(seed, page, size):
    # SHA-256 and not `random`: the same bits on both interpreters.
    bits = b""
    while len(bits) < size:
        bits += hashlib.sha256(b"%d %d %d" % (seed, page, len(bits))).digest()
    return int.from_bytes(bits[:size], "little")
