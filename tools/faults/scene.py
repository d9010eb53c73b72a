"""
Where a case begins: images, a flash chip with small slots, the device's boot.py.

A slot has 96 KiB: what counts is how many flash operations there are, not how large they are.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tools.device.layout import make_flash
from tools.device.port import esp32, otadata
from tools.device.port.flash import Flash
from tools.image.firmware import firmware
from tools.toolchain import text_of

from . import trust

SLOT = 0x18000  # bytes
ROWS = (
    ("nvs", 1, 2, 0x9000, 0x4000),
    ("otadata", 1, 0, 0xD000, 0x2000),
    ("phy_init", 1, 1, 0xF000, 0x1000),
    ("ota_0", 0, 0x10, 0x10000, SLOT),
    ("ota_1", 0, 0x11, 0x30000, SLOT),
)
PLACES = {row[0]: row[3] for row in ROWS}
CHIP = 0x50000  # bytes of flash

PRODUCT, NAME, SECRET = "pk", "dev", "secret"
EARLIER, OLD, NEW, LATER = "0.9.0", "1.0.0", "1.1.0", "1.2.0"

SMALL = None  # as small as the modules are: five blocks
UNITS = 65536 + 2 * 4096 + 16  # bytes: one note of the journal in the middle, and a last block
# that is not full

# Random numbers that are others at each start, and the same when a case is played again: the
# msgIds are as long, so that the journal takes as many flash operations.
_SEED = """
import os, random
random.seed(int.from_bytes(open(os.getenv("OTA_SIM_FLASH") + ".counters", "rb").read(4), "little"))
"""

_APP = Path(__file__).with_name("app.py")


@lru_cache(maxsize=64)
def image(version: str, size: int | None = SMALL, app: str | None = None) -> bytes:
    """
    An approved image. app: another text for its main, see app.py; size: bytes, None = SMALL.
    Raises as `firmware`.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = _APP if app is None else app
        return firmware(Path(folder, "image.bin"), version, app=source, size=size).read_bytes()


@dataclass(frozen=True)
class Scene:
    """
    A device that runs OLD. generation: of its boot loader; slot: label of the one that runs; age:
    values that its application has put into NVS, so that a page there ends elsewhere.
    """

    generation: str = "5.5"
    slot: str = "ota_0"
    age: int = 0

    @property
    def other(self) -> str:
        """Label of the slot that an upgrade goes to."""
        return "ota_1" if self.slot == "ota_0" else "ota_0"

    def flash(self) -> bytes:
        """The content of its chip."""
        return _flash(self)


# Both boot loaders, both directions. The ages: a new device; a page of NVS that has to be emptied
# for the last record, for the first one; one that just goes on into the next page.
SCENES = (
    Scene("5.5", "ota_0"),
    Scene("5.5", "ota_1", 350),
    Scene("6.1", "ota_0", 370),
    Scene("6.1", "ota_1", 100),
)


@lru_cache(maxsize=16)
def _flash(scene: Scene) -> bytes:
    images = {scene.slot: image(OLD)}
    if scene.slot == "ota_1":  # it came by an upgrade
        images["ota_0"] = image(EARLIER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "flash.bin")
        make_flash(path, images, ROWS, CHIP)
        with contextlib.closing(Flash(str(path), scene.generation)) as flash:
            if scene.slot == "ota_1":
                for index in (0, 1):
                    entry = bytearray(b"\xff" * 32)
                    otadata.set_state(entry, otadata.VALID)
                    otadata.set_seq(entry, index + 1)
                    otadata.write(flash, index, entry)
            if scene.age:
                nvs = open_nvs(flash, scene.slot, "app")
                for value in range(scene.age):
                    nvs.set_i32("count", value)
        return path.read_bytes()


def open_nvs(flash: Flash, running: str, namespace: str) -> esp32.NVS:
    """A namespace of a chip's NVS as the image in that slot sees it; mounts it."""
    chip = esp32.Chip(flash, running)
    return type("NVS", (esp32.NVS,), {"chip": chip})(namespace)


def boot_py(port: int, options: str, more: str = "") -> str:
    """
    The device's boot.py. port: of the broker; options: a dict's text; more: code, see app.py.
    """
    settings = {
        "WIFI_SSID": "home",
        "MQTT_SERVER": "127.0.0.1",
        "PRODUCT_KEY": PRODUCT,
        "IDENTIFIER": NAME,
        "DEVICE_SECRET": SECRET,
    }
    changes = [(f'{key} = ""', f'{key} = "{value}"') for key, value in settings.items()]
    changes.append(("MQTT_PORT = 1883", f"MQTT_PORT = {port}"))
    if trust.SIGNED:
        changes.append(("PUBLIC_KEYS = ()", f"PUBLIC_KEYS = ({trust.key().modulus!r},)"))
    return text_of("boot.py", *changes) + _SEED + f"OPTIONS = {options}\n{more}\n"
