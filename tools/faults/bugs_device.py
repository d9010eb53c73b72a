"""Seeded bugs of the simulated device: an upgrade over a wrong model is not the one of a chip."""

from .bug import Bug

DEVICE = (
    Bug(
        "the boot loader starts an image on trial again",
        "tools/device/port/bootloader.py",
        "if otadata.state(entries[i]) == otadata.PENDING_VERIFY:",
        "if otadata.state(entries[i]) == otadata.PENDING_VERIFY and i:",
        ("trial/1/once/reset/init",),
    ),
    Bug(
        "the boot loader does not note that it starts a new image",
        "tools/device/port/bootloader.py",
        "        otadata.set_state(entry, otadata.PENDING_VERIFY)\n",
        "",
        ("trial/0/once/cut/boot",),
    ),
    Bug(
        "set_boot confirms the image at once",
        "tools/device/port/otadata.py",
        "    set_state(entry, NEW)\n",
        "    set_state(entry, VALID)\n",
        ("trial/0/once/cut/boot",),
    ),
    Bug(
        "the confirmation of a pending image writes nothing",
        "tools/device/port/otadata.py",
        "    if state(entry) != VALID:\n",
        "    if state(entry) == NEW:\n",
        ("cut/0/300/before",),
    ),
    Bug(
        "every image is whole",
        "tools/device/port/appimage.py",
        "        return _verify(flash, offset, size, loading)\n",
        "        return True\n",
        ("late/0/spoilt/3",),
    ),
    Bug(
        "every reset is a power-on",
        "tools/device/port/machine.py",
        'return read_rtc(_flash()).get("cause", PWRON_RESET)',
        "return PWRON_RESET",
        ("late/0/exception/3",),
    ),
    Bug(
        "no deadline of the watchdog is written",
        "tools/device/port/machine.py",
        'WDT._file.write((_host.ticks_ms() + self._timeout).to_bytes(8, "little"))',
        "pass",
        ("trial/1/always/busy/import ota",),
    ),
    Bug(
        "NVS uses up its last free page",
        "tools/device/port/nvs.py",
        "if len(self._free) < 2:",
        "if not self._free:",
        ("cut/1/10/before",),
    ),
    Bug(
        "NVS takes a blob of the same length for the same blob",
        "tools/device/port/nvs.py",
        "[0] != len(value):\n            return False\n",
        "[0] == len(value):\n            return True\n",
        ("soak/12",),
    ),
    Bug(
        "the watchdog goes on behind a reset",
        "tools/device/supervisor.py",
        '        self._beside("wdt").unlink(missing_ok=True)\n        return bootloader',
        "        return bootloader",
        ("trial/1/once/busy/boot",),
    ),
    Bug(
        "waking from deep sleep runs the boot loader",
        "tools/device/supervisor.py",
        'if "wake" in rtc:',
        'if rtc.get("cause") == SOFT_RESET:',
        ("late/0/sleep/3",),
    ),
)
