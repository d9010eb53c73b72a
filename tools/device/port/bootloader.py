"""
The second stage boot loader: what runs between power and the application. Rollback is enabled, as
in stock MicroPython.

The order of its steps is the point of this file, and the same in both generations. Source: ESP-IDF
bootloader_utility.c (get_selected_boot_partition, load_boot_image, set_actual_ota_seq).
"""

try:
    from . import appimage, otadata
except ImportError:  # MicroPython: this folder is on the path
    import appimage
    import otadata

_FACTORY = -1


def boot(flash):
    """
    Run the boot loader over a Flash: label of the slot that runs, None when none boots.

    Raises PowerCut when a fault of the flash says so.
    """
    slots = {}
    count = 0
    test = None
    for row in flash.table:
        if row[1] == 0:
            if row[2] == 0:
                slots[_FACTORY] = row
            elif row[2] == 0x20:
                test = row
            elif row[2] & 0xF0 == 0x10:
                slots[row[2] & 15] = row
                count += 1
    index, initial = _selected(flash, _FACTORY in slots, count)
    if index is None:
        return None
    # The selected one, then backwards down to factory, then forwards.
    for at in list(range(index, _FACTORY - 1, -1)) + list(range(index + 1, count)):
        row = slots.get(at)
        if row and at < count and appimage.verify(flash, row[3], row[4], loading=True):
            if initial and at != _FACTORY:
                entry = bytearray(b"\xff" * 32)
                otadata.set_state(entry, otadata.VALID)
                otadata.set_seq(entry, at + 1)
                _write(flash, 0, entry)
            return row[0]
    if test and appimage.verify(flash, test[3], test[4], True):
        return test[0]
    return None


def _selected(flash, factory, count):
    # Index of the slot to try first (None: cannot go on); has otadata never been written?
    row = flash.find(1, 0)
    if row is None:
        return _FACTORY, False
    if row[4] < 8192:
        return None, False
    entries = otadata.read(flash)
    for i in (0, 1):
        if otadata.state(entries[i]) == otadata.PENDING_VERIFY:  # it had its chance
            otadata.set_state(entries[i], otadata.ABORTED)
            _write(flash, i, entries[i])
    if count == 0 or (otadata.unusable(entries[0]) and otadata.unusable(entries[1])):
        if factory:
            return _FACTORY, False
        return 0, otadata.blank(entries[0]) and otadata.blank(entries[1])
    active = otadata.active(entries)
    if active < 0:
        return _FACTORY, False
    entry = entries[active]
    index = ((otadata.seq(entry) - 1) & 0xFFFFFFFF) % count
    if otadata.state(entry) == otadata.NEW:
        otadata.set_state(entry, otadata.PENDING_VERIFY)
        _write(flash, active, entry)
    return index, False


def _write(flash, index, entry):
    try:
        otadata.write(flash, index, entry)
    except OSError:  # the boot loader logs a failed write, and goes on
        pass
