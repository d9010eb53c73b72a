"""
The frozen modules of an image: compile them, pack them, take them out again.

A real firmware links frozen modules into its code; here they lie as an archive (zip, stored) in
the image's first segment, behind a magic of our own, so that the simulated ESP32 runs exactly
the modules of the slot that booted.
"""

import io
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from tools.toolchain import mpy_cross

# Then comes the length of the archive (u32, little endian), then the archive.
MAGIC = b"frozen modules\r\n"
_HEAD = len(MAGIC) + 4
_FIRST_SEGMENT = 24  # file offset of the first segment's head: load address, length
_CHUNK = 0x10000
_EPOCH = (2000, 1, 1, 0, 0, 0)  # the same modules give the same archive

Source = Path | str | bytes  # a .py file, Python text, or a finished .mpy
Reader = Callable[[int, int], bytes]  # (offset, length): at most length bytes of the image


class CompileError(ValueError):
    """mpy-cross refused a module; the text is what it said."""


@lru_cache(maxsize=256)
def _compile(name: str, text: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.py"), Path(folder, "out.mpy")
        source.write_text(text, encoding="utf-8")
        run = subprocess.run(
            [mpy_cross(), "-O3", "-s", name + ".py", "-o", result, source],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if run.returncode:
            raise CompileError(f"{name}: {run.stderr.strip() or run.stdout.strip()}")
        return result.read_bytes()


def compiled(name: str, source: Source) -> bytes:
    """
    A module as .mpy (-O3, as firmware builds do).

    name: as in the archive, "main" or "ota/agent". bytes are taken for a finished .mpy, also a
    spoilt one. Raises CompileError, OSError (file not there).
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, Path):
        source = source.read_text(encoding="utf-8")
    if name == "main":
        # A board runs main in the name space of boot.py. An imported module has its own:
        # give it those names.
        source = 'globals().update(__import__("__main__").__dict__)\n' + source
    return _compile(name, source)


def pack(modules: Mapping[str, Source]) -> bytes:
    """The archive with its magic and length, filled up to 4 bytes. Raises as `compiled`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(modules):
            info = zipfile.ZipInfo(name + ".mpy", _EPOCH)
            archive.writestr(info, compiled(name, modules[name]))
    data = packed.getvalue()
    return MAGIC + len(data).to_bytes(4, "little") + data + bytes(-len(data) % 4)


def frozen(image: bytes | Reader) -> dict[str, bytes]:
    """
    The frozen modules of an image: file name ("ota/agent.mpy") to content. None in it, or no
    image: {}.

    image: all of it, or a function that reads a piece, so that a slot need not be held in memory.
    Raises ValueError when the archive is damaged.
    """
    read = image if callable(image) else lambda offset, length: image[offset : offset + length]
    head = read(0, _FIRST_SEGMENT + 8)
    if len(head) < _FIRST_SEGMENT + 8 or head[0] != 0xE9:
        return {}
    end = len(head) + int.from_bytes(head[-4:], "little")
    at = len(head)
    while at < end:
        found = read(at, min(_CHUNK + _HEAD, end - at)).find(MAGIC)
        if found >= 0:
            return _unpack(read, at + found)
        at += _CHUNK
    return {}


def _unpack(read: Reader, at: int) -> dict[str, bytes]:
    size = int.from_bytes(read(at + len(MAGIC), 4), "little")
    try:
        with zipfile.ZipFile(io.BytesIO(read(at + _HEAD, size))) as archive:
            if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
                raise zipfile.BadZipFile("compressed, which ours is not")
            found = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"archive of frozen modules: {error}") from error
    if any(name.startswith("/") or ".." in name.split("/") for name in found):
        raise ValueError("archive of frozen modules: a name leads out of it")
    return found
