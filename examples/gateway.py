# A gateway: upgrades itself, and asks the platform on behalf of the devices behind it, which have
# no connection of their own. Copy it as main.py; DEVICES may stand in boot.py.
# Signed firmware and TLS need a Trust more, as in the project's main.py: this takes any firmware.
import sys
import time

import machine

import ota

# (product key, identifier, version that is wanted)
devices = globals().get("DEVICES", (("valve", "valve-1", "2.0.0"),))
asked = {}  # msgId of a request to the device that it is about


def on_info(msg_id, code, data):
    who = asked.pop(msg_id, None)
    if code:  # 404: no such version, or no such device
        print("no firmware for", who, code)
    else:
        # Yours: fetch data["url"], compare its MD5 with data["sign"], hand it on.
        print("firmware for", who, data["firmwareVersion"], data["sign"])


def run():
    link = ota.Link(
        IDENTIFIER,
        MQTT_SERVER,
        MQTT_PORT,
        user=PRODUCT_KEY + "&" + IDENTIFIER,
        password=DEVICE_SECRET,
    )
    agent = ota.init(PRODUCT_KEY, IDENTIFIER, link, on_info=on_info)
    print("version", agent.version)
    waiting = list(devices)
    due = time.ticks_ms()
    while True:
        agent.poll()
        if asked and time.ticks_diff(time.ticks_ms(), due) >= 0:
            print("no answer for", *asked.values())
            asked.clear()
        if link.up and waiting and not asked:  # one after the other
            product, identifier, version = waiting.pop()
            asked[agent.get_firmware_info(version, product, identifier)] = identifier
            due = time.ticks_add(time.ticks_ms(), 10_000)
        if not agent.is_fetching():
            time.sleep_ms(20)


try:
    run()
except Exception as e:  # a device at its prompt could never be upgraded again
    sys.print_exception(e)
    time.sleep(10)
    machine.reset()
