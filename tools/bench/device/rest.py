"""The agent with nothing to do: until its version is told, for the smallest heap."""

import sys

import requests  # noqa: F401
import umqtt.simple  # noqa: F401
from config import HOST, MQTT_PORT, NAME, PRODUCT

import ota


def main():
    agent = ota.init(PRODUCT, NAME, ota.Link(NAME, HOST, MQTT_PORT))
    while not agent._told or agent._out or agent._pid:
        agent.poll()
    sys.exit(7)


main()
