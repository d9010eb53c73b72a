"""
The two slots: which runs, which boots, what became of the last upgrade, and the trial of an image
that is new; loaded for a start, the begin of an upgrade, the switch.

A slot goes by the subtype of its partition: int, 16 = ota_0. Never erases the boot record of the
running slot by itself, but for the image on trial that failed. That has to prove itself within a
deadline; the watchdog, which boot.py started, catches what hangs. Rolling back is a restart
without its boot record: the boot loader takes the other image, as it does by itself when the one
on trial did not confirm. Source: MicroPython esp32.Partition; ESP-IDF OTA data,
esp_app_format.h, esp_app_desc.h; docs/hardware.md.
"""

import json
import sys
from binascii import crc32
from struct import unpack

import machine
from esp32 import NVS, Partition

from . import OTAError
from .stream import after, left

_NO_SLOT = const(423)
_SWITCH = const(453)
_NOT_STARTED = const(460)
_SELF_TEST = const(461)
_NOT_CONNECTED = const(462)
_OTHER_VERSION = const(463)
_ARGUMENT = const(480)
_MQTT = const(482)

# States of the journal's record, see there.
_WAITING = const(1)
_SWITCHING = const(3)
_DONE = const(4)

# Phases of the agent, see there.
_READY = const(1)
_TRIAL = const(6)

# States of a boot record; the others are INVALID 3, ABORTED 4.
_NEW = const(0)
_PENDING_VERIFY = const(1)
_VALID = const(2)

_HEAD = const(208)  # bytes of an image that we look at
_IOCTL_ERASE = const(6)
_WDT_MS = const(120000)
_NEVER_MS = const(0x7FFFFFFF)
_RECORD_MAX = const(1152)  # bytes: all texts of a record at their greatest length, and their names


def running():
    """The Partition that runs."""
    return Partition(Partition.RUNNING)


def booting():
    """The slot that boots next, by the boot records: int."""
    return Partition(Partition.BOOT).info()[1]


def head(part):
    """The first 208 bytes of the image in a Partition: bytearray."""
    buf = bytearray(_HEAD)
    part.readblocks(0, buf, 0)
    return buf


def records():
    """
    Yields the boot records whose checksum fits: (state int, slot int, Partition, sector int).

    Source: ESP-IDF bootloader_common.c; the checksum is over the number alone, and that of a blank
    sector does not fit.
    """
    slots = 0
    for app in Partition.find(Partition.TYPE_APP):
        slots += app.info()[1] >> 4 == 1
    for otadata in Partition.find(Partition.TYPE_DATA, 0):
        for sector in (0, 1):
            entry = bytearray(32)
            otadata.readblocks(sector, entry, 0)
            seq, _, state, crc = unpack("<I20sII", entry)
            if crc32(entry[:4], 0xFFFFFFFF) == crc:
                yield state, 16 + (seq - 1) % slots, otadata, sector


def confirm(part):
    """
    Makes the running Partition the one that boots, and its record VALID. True when that is what
    is read back: flash may fail silently. Raises OSError of the flash.
    """
    slot = part.info()[1]
    # It marks the record that is active, so that has to be ours.
    if booting() != slot:
        part.set_boot()
    part.mark_app_valid_cancel_rollback()
    for record in records():
        if record[:2] == (_VALID, slot):
            return True


def forget(slot):
    """Erases each boot record that names a slot (int), so that it does not boot."""
    for _, named, otadata, sector in records():
        if named == slot:
            otadata.ioctl(_IOCTL_ERASE, sector)


def build(part):
    """Which build the image in a Partition is: str, the first 8 bytes of the ELF's SHA-256."""
    return head(part)[176:184].hex()


def other():
    """
    The slot that does not run, made ready to be written: (Partition, slot int, size int bytes, the
    chip's id in the running image).
    Raises OTAError 423 (there is none); OSError of the flash.
    """
    own = running()
    here = own.info()[1]
    try:
        part = own.get_next_update()
        _, slot, _, size, _, _ = part.info()
        if slot == here:
            raise OSError
    except OSError:
        raise OTAError(_NO_SLOT)
    # No record names what is not whole: one of an earlier failure would be taken for this one's
    # after the switch, and a second set_boot for the same slot can strand the device on a bad
    # image (ESP-IDF up to 5.5).
    forget(slot)
    # Without a record of ours, the boot loader would take slot 0 when the new image failed.
    if booting() != here:
        confirm(own)
    return part, slot, size, head(own)[12:14]


def switch(part, journal):
    """Makes the image in a Partition the one to boot, and notes that. Raises OTAError 453."""
    slot = part.info()[1]
    # For an image that does not tell its version, see trial.begin.
    setattr(journal, "v%d" % slot, build(part) + journal.version)
    journal.write(_SWITCHING)
    try:
        part.set_boot()
        if booting() != slot:  # flash may fail silently
            raise OSError
    except OSError:  # or ESP-IDF's own check refuses the image
        forget(slot)  # it must not boot after that
        raise OTAError(_SWITCH)


def load(journal):
    """Fills a Journal with the newer one of the two records. Returns it."""
    for key in "ab":
        try:
            buf = bytearray(_RECORD_MAX)
            nvs = NVS("ota")
            record = json.loads(buf[: nvs.get_blob(key, buf)])
            if record["turn"] > journal.turn:
                for name in record:  # whoever wrote it
                    if type(record[name]) != type(getattr(type(journal), name, "")):  # noqa: E721
                        raise ValueError
                for name in record:
                    setattr(journal, name, record[name])
                units = nvs.get_i32("units")
                if units >> 10 == journal.turn & 1023:
                    journal.units = units & 1023
        except Exception:  # there is none, or it is not ours: a start must not fail for it
            pass
    return journal


def start(ota, version, items):
    """
    The second half of the agent's constructor, see there. items: the settings. Raises OTAError
    480, 482.
    """
    client = ota._mqtt
    ota.on_message = getattr(client, "cb", None)
    for name in items:
        if not hasattr(type(ota), name):
            raise OTAError(_ARGUMENT)
        setattr(ota, name, items[name])
    ota._phase = _READY
    journal = load(ota._log)
    # What to go on with, as soon as the platform tells the URL again.
    if not begin(ota, journal, version) and _WAITING <= journal.state <= _SWITCHING:
        ota._kept = journal.sign
    client.set_callback(ota._hear)
    try:
        for name in ("upgrade", "get_reply"):
            client.subscribe(ota._base + name, 1)
    except Exception:  # umqtt's own exceptions have no common class
        ota.destroy()
        raise OTAError(_MQTT)
    if not hasattr(client, "up"):
        ota.connected()


def begin(ota, journal, version):
    """
    At every start. Sets ota.version: frozen into the running image, in its descriptor, noted when
    it was written, or the argument.

    What became of a switch: the journal is DONE then, else left as it is. Returns True when a
    trial begins.
    """
    own = running()
    here = own.info()[1]
    image = head(own)
    path = sys.path[:]
    # A file `firmware.py` would stay the same whatever image runs.
    for folder in path:
        if not folder.endswith(".frozen"):
            sys.path.remove(folder)
    found = None
    try:
        found = image[48:80].decode().rstrip("\0")
    except Exception:  # no text: a start must not fail for it
        pass
    try:
        import firmware

        found = firmware.VERSION
    except Exception:  # none
        pass
    sys.path[:] = path
    noted = getattr(journal, "v%d" % here, "")
    # Noted for exactly this build: by the first bytes of the ELF's SHA-256.
    if noted[:16] != build(own):
        noted = ""
    ota.version = found or noted[16:] or version

    if journal.late:
        from .late import begin

        begin(ota, journal, here)
    switching = journal.state == _SWITCHING
    # Also when the boot loader could not note that it starts us. One that failed already has come
    # back: there is nothing else that starts.
    trial = switching and journal.slot == here and not journal.code
    for state, slot, _, _ in records():
        if slot == here:
            trial = state == _PENDING_VERIFY or trial and state != _VALID
        # Earlier failures are not among the records any more, see Slot.
        elif switching and slot == journal.slot:
            if state == _NEW:  # a soft reset: the boot loader did not run yet
                machine.reset()
            if state != _VALID:
                journal.code = journal.code or _NOT_STARTED
                journal.write(_DONE)
                forget(slot)  # whatever can be read there later
    if trial:
        ota.wdt = machine.WDT(timeout=_WDT_MS)
        ota.due = after(ota.trial_s * 1000)
        ota.tested = None
        ota._also = step
        ota._cmd = journal
        ota._phase = _TRIAL
        return True
    # With a code the image failed, though a cut may have taken its boot record.
    if switching and (journal.slot == here or journal.code):
        if journal.slot == here:  # it is confirmed, whatever was read back
            journal.code = (journal.version != ota.version) * _OTHER_VERSION
        journal.write(_DONE)


def step(ota, journal):
    """
    While the trial lasts: MQTT is reached, then the self-test passes. Returns True when the image
    is confirmed; restarts when it failed, why is in the journal.

    The version is told only after that: the platform takes it for success, and what is confirmed
    cannot be taken back by a power cut.

    The self-test is asked until it says True (good) or False (bad); None = not yet. What it raises
    counts as False.
    """
    own = running()
    here = own.info()[1]
    code = _NOT_CONNECTED
    late = not left(ota.due)
    if ota.tested is False:  # reached
        code = _SELF_TEST
        good = True
        ours = journal.state == _SWITCHING and journal.slot == here
        if ours and journal.version != ota.version:
            # The platform would never count it as a success, and offer it again for ever.
            code = _OTHER_VERSION
            good = False
        elif ota.self_test:
            try:
                good = ota.self_test()
            except Exception:
                good = False
        late = late or good is not None
        if good:
            code = _SWITCH
            try:
                arm = ota.late_s
                if arm:
                    from .late import arm
                if confirm(own):
                    ota.wdt = machine.WDT(timeout=_NEVER_MS)
                    ota._also = None
                    if arm:
                        arm(ota, journal, here)
                    if ours:
                        journal.code = 0
                        if ota.trust:
                            ota.trust.confirm(ota)
                        journal.write(_DONE)
                    return True
            except (OSError, MemoryError):
                pass
    if late:
        journal.code = code
        try:
            journal.write(journal.state)
            forget(here)
        finally:
            machine.reset()
