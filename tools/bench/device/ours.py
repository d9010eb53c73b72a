"""(b), (c) and .gz: the agent, measured from the open connection to the switch."""

import gc

from config import HOST, MQTT_PORT, NAME, PRODUCT
from meter import Meter

import ota
import ota.download


def main():
    meter = Meter()
    open_ = ota.download.Download.open
    switch = ota.download.Upgrade.switch

    def opened(job):
        open_(job)
        meter.begin()

    def switched(job):
        meter.end()
        switch(job)

    ota.download.Download.open = opened
    ota.download.Upgrade.switch = switched
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    gc.collect()
    while True:
        agent.poll()


main()
