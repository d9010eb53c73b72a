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
    step = ota.download.Upgrade.step
    save = Journal.save
    is_locked = [False]
    steps = [0]

    def locked(job):
        # Not the first blocks, nor the end with its digest: they are no steady state.
        if job.slot.safe < 8192 or job.size - job.done < 1 << 19:
            return step(job)
        steps[0] += 1
        is_locked[0] = True
        micropython.heap_lock()
        try:
            return step(job)
        finally:
            micropython.heap_unlock()
            is_locked[0] = False

    def saved(journal, state, note=None):
        if not is_locked[0]:
            return save(journal, state, note)
        micropython.heap_unlock()
        try:
            save(journal, state, note)
        finally:
            micropython.heap_lock()

    def switched(job):
        if not steps[0]:
            raise ValueError("no step was locked")
        switch(job)

    switch = ota.download.Upgrade.switch
    ota.download.Upgrade.switch = switched
    ota.download.Upgrade.step = locked
    Journal.save = saved
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    gc.collect()
    while True:
        agent.poll()


main()
