"""
The agent, while whatever it does a block happens with the heap locked: an allocation would raise.
The note of each 64 KiB is outside of that.
"""

import gc

import micropython
from config import HOST, MQTT_PORT, NAME, PRODUCT

import ota
import ota.download
from ota.journal import Journal


def main():
    lock, unlock = micropython.heap_lock, micropython.heap_unlock
    step = ota.download.Upgrade.step
    save = Journal.save

    def locked(job):
        if job.slot.safe < 8192 or job.size - job.done < 8192:
            return step(job)
        lock()
        try:
            return step(job)
        finally:
            unlock()

    def saved(journal, state, note=None):
        if not note:
            return save(journal, state)
        unlock()
        try:
            save(journal, state, note)
        finally:
            lock()

    ota.download.Upgrade.step = locked
    Journal.save = saved
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    gc.collect()
    while True:
        agent.poll()


main()
