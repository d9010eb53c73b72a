"""
What only the simulation can do, for tests: faults of the flash, counters, the link, time that
stands still, a restart.

Where this module is not (a board, another model of the hardware), such a test says SKIP.
"""

import json
import os
import time

import esp32
from flash import COUNTERS


def fault(k, kind, number=None):
    """
    Arms a fault at the k-th flash operation from here, 0 = the next one; kinds: see flashfault.py.
    """
    esp32.Partition.chip.flash.fault(k, kind, number)


def disarm():
    """Forgets the faults that have not come."""
    esp32.Partition.chip.flash.disarm()


def counters():
    """dict: operations, erases, violations, aborts; all that this flash file has seen."""
    flash = esp32.Partition.chip.flash
    return {name: getattr(flash, name) for name in COUNTERS}


def link(up, ssid=None, key=None):
    """What `network.WLAN` says from now on. ssid None: any will do."""
    with open(os.getenv("OTA_SIM_FLASH") + ".net", "w") as file:
        json.dump({"up": up, "ssid": ssid, "key": key or ""}, file)


def clock(step_ms=0):
    """
    Time stands still but for sleeping, and step_ms at each look at the ticks. None: real time
    again.
    """
    time._freeze(None if step_ms is None else step_ms * 1000)


def advance(ms):
    """Under clock(): time goes on by so much at once."""
    time.sleep_ms(ms)


def restart():
    """
    Runs the boot loader as a reset does, and this process goes on as the slot that it chose.
    Returns its label, None: no boot.

    Objects made before (NVS, Partition) are of the old start.
    """
    import bootloader

    flash = esp32.Partition.chip.flash
    label = bootloader.boot(flash)
    if label is not None:
        esp32.Partition.chip = esp32.NVS.chip = esp32.Chip(flash, label)
    return label
