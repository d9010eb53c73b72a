"""
The line to a board: pieces of code that it runs, over mpremote, until its answer is whole.

A serial line loses bytes. So each step is an mpremote of its own, a child process with a deadline;
the code carries its digest and runs only when that fits, and so does the answer. Whatever breaks
is done again: all code here may run twice.
"""

import base64
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from textwrap import indent

_CODE = Path(__file__).with_name("on_board")
_DEADLINE_S = 3.0  # of a step, and for each KiB of it
_KIB_S = 1.0
_TRIES = 25
_FIRST_TRIES = 8
_PAUSE_S = 0.2  # before the next try: the port has to be free again
_STOP_S = 5.0
_LOOK_S = 0.02
_BOOT_S = 15.0  # more for a step with a soft reset before it: boot.py runs
_GRACE_S = 1.0  # for mpremote to end by itself, once the answer is there

# What the board is sent: runs the code when its digest fits.
_CHECKED = (
    "import gc,hashlib,binascii as b;gc.collect();s=b.a2b_base64({code!r})\n"
    "if b.hexlify(hashlib.sha256(s).digest())=={digest!r}:exec(s,{{}})\n"
    "else:print('damaged')\n"
)
# How the code tells its answer: with a digest, between two marks that no prompt has.
_ANSWER = (
    "def answer(t):\n"
    " import hashlib,binascii as b\n"
    " print('<<<'+b.hexlify(hashlib.sha256(t.encode()).digest()).decode()+t+'<|>')\n"
)
_BROKE = "!"
_ERROR = f"\nexcept Exception as e:\n answer({_BROKE!r}+repr(e))\n"
_DIGEST = 64


class LineError(Exception):
    """The board cannot be reached, or does not do it, in a sentence."""


class Line:
    """
    port: what mpremote connects to: a device, socket://host:port, rfc2217://host:port; tries: of
    one step. Attribute broken: how many steps had to be done again.
    """

    def __init__(self, port: str, tries: int = _TRIES):
        self.port, self._tries, self.broken = port, tries, 0
        self._answered = False  # before, nobody may be there
        self._reset = False  # the next step begins with a soft reset

    def run(self, name: str, **values) -> str:
        """
        A file of on_board/, run by the board. values: what it finds under these names. Returns
        what it answers. Raises LineError.
        """
        given = "".join(f"{key}={value!r}\n" for key, value in values.items())
        body = given + (_CODE / f"{name}.py").read_text("ascii")
        code = (_ANSWER + "try:\n" + indent(body, " ") + _ERROR).encode()
        digest = hashlib.sha256(code).hexdigest().encode()
        text = _CHECKED.format(code=base64.b64encode(code), digest=digest)
        said, freed = "", False
        if problem := _no_port(self.port):
            raise LineError(problem)
        for _ in range(self._tries if self._answered else min(self._tries, _FIRST_TRIES)):
            said = self._mpremote("exec", text)
            found = _answer_in(said)
            if "MemoryError" in said and not freed:
                # Its program was stopped; what that had in the heap is still there.
                self._reset = freed = True
                continue
            if found is not None and found[:1] == _BROKE:
                raise LineError(f"{self.port}: the board says {found[1:]}")
            if found is not None:
                self._answered = True
                return found
            self.broken += 1
            time.sleep(_PAUSE_S)
        raise LineError(f"{self.port}: {_why(said)}")

    def _mpremote(self, *words: str) -> str:
        # Returns what it said. As a rule without a soft reset: that would wait for boot.py, which
        # may wait for Wi-Fi.
        command = [sys.executable, "-m", "mpremote", "connect", self.port]
        command += [*([] if self._reset else ["resume"]), *words]
        deadline = _DEADLINE_S + _KIB_S * sum(map(len, words)) / 1024 + _BOOT_S * self._reset
        self._reset = False
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = bytearray()
        reader = threading.Thread(target=_read, args=(child.stdout, said), daemon=True)
        reader.start()
        try:
            end = time.monotonic() + deadline
            while reader.is_alive() and time.monotonic() < end:
                reader.join(_LOOK_S)
                if _answer_in(said.decode(errors="replace")) is not None:
                    end = min(end, time.monotonic() + _GRACE_S)
        finally:
            child.kill()
            child.wait(_STOP_S)
            reader.join(_STOP_S)
        return said.decode(errors="replace")


def _read(stream, said):
    while data := stream.read1(4096):
        said += data


def _answer_in(said):
    for rest in said.split("<<<")[1:]:
        text, ended, _ = rest.partition("<|>")
        digest, text = text[:_DIGEST], text[_DIGEST:]
        if ended and hashlib.sha256(text.encode()).hexdigest() == digest:
            return text
    return None


def _no_port(port):
    # What can be said before mpremote tries; "" = nothing.
    if os.name == "posix" and port.startswith(("tty", "cu.", "COM")):
        return f"{port}: a port is a path here, like /dev/ttyUSB0"
    if not port.startswith("/"):
        return ""
    if not os.path.exists(port):
        return f"{port}: there is no such port: is the board plugged in?"
    if not os.access(port, os.R_OK | os.W_OK):
        return f"{port}: you may not use it: on most systems it takes the group dialout"
    return ""


def _why(said):
    # The last line that mpremote or the board said; words for the usual ones.
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "no answer"
    if "no device found" in said:
        return "there is no board on USB: plug one in, or say where it is by --port"
    if "could not enter raw repl" in said or last == "no answer":
        return "no MicroPython answers there: is it the right port, is the board on?"
    if "failed to access" in said or "could not open port" in said:
        return f"the port cannot be opened ({last}): another program may have it open"
    return last
