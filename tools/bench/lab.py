"""A device of the benchmarks: its modules as .mpy, its flash file, one process of MicroPython."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from tools.sign.keys import generate
from tools.sign.manifest import Manifest
from tools.toolchain import LIB, ROOT, compile_mpy, micropython, text_of

from .servers import HOST, NAME, PRODUCT

DEVICE = Path(__file__).parent / "device"
HEAP = 256 << 10  # bytes, where the heap is not the question
SLOTS = (0x10000, 0x510000)
_OTADATA = 0xD000
_SECTOR = 4096
_FLASH = 0xA10000
_RESTART = 7  # the exit status of machine.reset()
_TIMEOUT_S = 15

# (c): what is in (b) besides, taken out of Slot.add.
_UNCHECKED = (
    (
        """\
            if not self.find(block):
                code = _ERASE
                part.ioctl(_IOCTL_ERASE, block)
                code = _WRITE
                part.writeblocks(block, image, 0)
                code = _READ_BACK
                if self.exact and not self.find(block):
                    raise OSError
            part.readblocks(block, image)
""",
        """\
            code = _ERASE
            part.ioctl(_IOCTL_ERASE, block)
            code = _WRITE
            part.writeblocks(block, image, 0)
""",
    ),
)


class Run(NamedTuple):
    """What one process came to. result: its line of JSON, {} = none; why: "" = all is well."""

    result: dict
    why: str


class Lab:
    """
    folder: an empty one; mqtt, http: ports; peer: a file or a package to compare, None = none.
    Raises ValueError: something does not compile.
    """

    def __init__(self, folder: Path, mqtt: int, http: int, peer: Path | None = None):
        self.folder = folder
        self._ports = {"MQTT_PORT": mqtt, "PORT": http}
        self._peer = peer
        self.lib = folder / "lib"
        compile_mpy(LIB / "umqtt" / "simple.py", self.lib / "umqtt" / "simple.mpy", 3)
        for source in sorted(DEVICE.glob("*.py")):
            compile_mpy(source, self.lib / f"{source.stem}.mpy", 3)
        if peer:
            self._copy_peer(peer)
        self._unchecked = folder / "unchecked"
        for source in sorted((ROOT / "ota").glob("*.py")):
            for lib in (self.lib, self._unchecked):
                compile_mpy(source, lib / "ota" / f"{source.stem}.mpy", 3)
        bare = folder / "download.py"
        bare.write_text(text_of("ota/download.py", *_UNCHECKED))
        compile_mpy(bare, self._unchecked / "ota" / "download.mpy", 3)

    def _copy_peer(self, peer: Path) -> None:
        files = [peer] if peer.is_file() else sorted(peer.rglob("*.py"))
        base = peer.parent
        for source in files:
            target = (self.lib / source.relative_to(base)).with_suffix(".mpy")
            compile_mpy(source, target, 3)

    def offer(self, path: str, size: int) -> None:
        """The file to download from now on, by its path on the server."""
        url = f"http://{HOST}:{self._ports['PORT']}{path}"
        settings = self._ports | {
            "HOST": HOST,
            "PATH": path,
            "URL": url,
            "SIZE": size,
            "PRODUCT": PRODUCT,
            "NAME": NAME,
            "PEER": self._peer.stem if self._peer else "",
        }
        text = "".join(f"{key} = {value!r}\n" for key, value in settings.items())
        self._configure(text)
        self.url = url

    def offer_signed(self, bits: int) -> None:
        """A signed manifest to verify from now on. bits: of the key."""
        key = generate(clear(self.folder / "key") / "key.pem", bits)
        manifest = Manifest(PRODUCT, "esp32", "1.1.0", "ab" * 16, 1 << 20, "cd" * 32, sequence=1)
        signed = key.sign(manifest)
        settings = {
            "PRODUCT": manifest.product,
            "BOARD": manifest.board,
            "VERSION": manifest.version,
            "SIGN": manifest.md5,
            "SIZE": manifest.size,
            "KEY": key.modulus,
            "MANIFEST": signed.manifest,
            "SIGNATURE": signed.signature,
        }
        self._configure("".join(f"{name} = {value!r}\n" for name, value in settings.items()))

    def _configure(self, text: str) -> None:
        source = self.folder / "config.py"
        source.write_text(text)
        compile_mpy(source, self.lib / "config.mpy", 3)

    def erase(self, running: bytes) -> None:
        """A board on which `running` runs from ota_0, and nothing else is."""
        flash = bytearray(b"\xff" * _FLASH)
        flash[SLOTS[0] : SLOTS[0] + len(running)] = running
        flash[_OTADATA : _OTADATA + 32] = _record(1, 2)
        (self.folder / "flash.bin").write_bytes(flash)
        (self.folder / "nvs").write_bytes(bytes(2012))
        (self.folder / "run").write_text("0")

    def boot(self) -> None:
        """The boot loader's part of a switch: the new record is on trial, ota_1 runs."""
        with (self.folder / "flash.bin").open("r+b") as file:
            file.seek(_OTADATA + _SECTOR)
            if int.from_bytes(file.read(4), "little") == 2:
                file.seek(_OTADATA + _SECTOR)
                file.write(_record(2, 1))
                (self.folder / "run").write_text("1")

    def run(self, program: str, heap: int = HEAP, unchecked: bool = False) -> Run:
        """One process of a program of device/, until it restarts. heap: bytes."""
        # As short as on a board: MicroPython keeps the path of each file that it loads.
        path = "unchecked:lib" if unchecked else "lib"
        command = [micropython(), "-X", f"heapsize={heap}", "-c", f"import {program}"]
        env = {"MICROPYPATH": f"{path}:.frozen"}
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=env, capture_output=True, text=True,
                timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Run({}, "it takes too long")
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        result = json.loads(lines[-1]) if lines else {}
        if done.returncode != _RESTART:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no word"]
            return Run(result, f"status {done.returncode}: {last[0]}")
        return Run(result, "")

    def differs(self, image: bytes) -> str:
        """Where ota_1 is not the image; "" = it is."""
        with (self.folder / "flash.bin").open("rb") as file:
            file.seek(SLOTS[1])
            found = file.read(len(image))
        if found == image:
            return ""
        at = next(i for i, (a, b) in enumerate(zip(found, image, strict=True)) if a != b)
        return f"the slot differs from the image at byte {at:,}"


def _record(seq: int, state: int) -> bytes:
    number = seq.to_bytes(4, "little")
    crc = crc32(number, 0xFFFFFFFF).to_bytes(4, "little")
    return number + b"\xff" * 20 + state.to_bytes(4, "little") + crc


def versions() -> dict[str, str]:
    """Of what is measured, and of what measures."""
    words = "import sys, requests; print(sys.version.split(' on ')[0], requests.__version__)"
    done = subprocess.run(
        [micropython(), "-c", words], capture_output=True, text=True, timeout=10, check=True
    )
    found, requests = done.stdout.strip().rsplit(" ", 1)
    return {"MicroPython": found, "requests": requests, "Python": sys.version.split()[0]}


def clear(folder: Path) -> Path:
    """An empty folder in its place."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
