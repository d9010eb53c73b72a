"""
The agent, while whatever it does a block happens with the heap locked: an allocation would raise.
The note of each 64 KiB is outside of that.
"""

import gc

import micropython
from config import HOST, MQTT_PORT, NAME, PRODUCT

import ota
import ota.download
from ota.agent import Journal


def main():
    step = ota.download.Upgrade.step
    write = Journal.write
    is_locked = [False]
    steps = [0]

    def locked(job):
        # Not the first blocks, nor the end with its digest: they are no steady state.
        if job.slot.done < 8192 or job.size - job.done < 1 << 19:
            return step(job)
        steps[0] += 1
        is_locked[0] = True
        micropython.heap_lock()
        try:
            return step(job)
        finally:
            micropython.heap_unlock()
            is_locked[0] = False

    def written(journal, state, units=None):
        if not is_locked[0]:
            return write(journal, state, units)
        micropython.heap_unlock()
        try:
            write(journal, state, units)
        finally:
            micropython.heap_lock()

    def said(agent, status, progress):
        if status == "verifying" and not steps[0]:
            raise ValueError("no step was locked")
        say(agent, status, progress)

    say = ota.OTA._say
    ota.OTA._say = said
    ota.download.Upgrade.step = locked
    Journal.write = written
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    gc.collect()
    while True:
        agent.poll()


main()
