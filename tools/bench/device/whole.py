"""The whole agent as main.py runs it, for the smallest heap; ends with the restart, or at rest."""

import sys

import esp32
import requests  # noqa: F401
import umqtt.simple  # noqa: F401
from config import HOST, MQTT_PORT, NAME, PRODUCT

import ota


def main():
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    on_trial = not agent.tested
    while agent._phase != 1 or not on_trial or agent._out or not agent._told:
        agent.poll()
        if agent._log.state == 5:
            print("failed", agent._log.code)
            sys.exit(1)
    esp32.keep()
    sys.exit(7)


main()
