# The least: a device that can be upgraded, and does nothing else. Copy it as main.py; the names in
# capitals are the settings of boot.py.
# Signed firmware and TLS need a Trust more, as in the project's main.py: this takes any firmware.
import sys
import time

import machine

import ota


def run():
    link = ota.Link(
        IDENTIFIER,
        MQTT_SERVER,
        MQTT_PORT,
        user=PRODUCT_KEY + "&" + IDENTIFIER,
        password=DEVICE_SECRET,
    )
    agent = ota.init(PRODUCT_KEY, IDENTIFIER, link)
    print("version", agent.version)
    told = None
    while True:
        agent.poll()
        if link.error is not told:  # each try has its own
            told = link.error
            print("no connection:", repr(told))
        if not agent.is_fetching():
            time.sleep_ms(20)


try:
    run()
except Exception as e:  # a device at its prompt could never be upgraded again
    sys.print_exception(e)
    time.sleep(10)
    machine.reset()
