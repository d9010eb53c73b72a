"""(b), (c) and .gz: the agent, measured from the open connection to the last block."""

import gc

from config import HOST, MQTT_PORT, NAME, PRODUCT
from meter import Meter

import ota
import ota.download


def main():
    meter = Meter()
    open_ = ota.download.Download.open
    say = ota.OTA._say

    def opened(job):
        open_(job)
        meter.begin()

    def said(agent, status, progress):
        if status == "verifying":
            meter.end()
        say(agent, status, progress)

    ota.download.Download.open = opened
    ota.OTA._say = said
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    gc.collect()
    while True:
        agent.poll()


main()
