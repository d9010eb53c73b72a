# An application beside the agent: publishes a value every second, also while it is upgraded, and
# says for itself whether a new firmware works. Copy it as main.py.
# Signed firmware and TLS need a Trust more, as in the project's main.py: this takes any firmware.
import sys
import time

import machine

import ota

PERIOD_MS = 1000
sent = 0


def measure():
    return 20 + time.ticks_ms() % 100 / 10  # yours: read the sensor


def self_test():
    # Of a new firmware, once it has reached the platform: True keeps it, False rolls it back, None
    # is asked again. What has to work before the old one goes?
    return True if sent else None


def run():
    global sent
    link = ota.Link(
        IDENTIFIER,
        MQTT_SERVER,
        MQTT_PORT,
        user=PRODUCT_KEY + "&" + IDENTIFIER,
        password=DEVICE_SECRET,
    )
    agent = ota.init(PRODUCT_KEY, IDENTIFIER, link, self_test=self_test)
    print("version", agent.version)
    # Below its own topics: there a device may publish what it likes.
    topic = "/sys/%s/%s/temperature" % (PRODUCT_KEY, IDENTIFIER)
    due = time.ticks_ms()
    while True:
        agent.poll()  # in slices, at most 1 s each in a download
        if link.up and time.ticks_diff(time.ticks_ms(), due) >= 0:
            due = time.ticks_add(time.ticks_ms(), PERIOD_MS)
            try:
                link.publish(topic, "%.1f" % measure())
                sent += 1
            except OSError:
                pass  # the connection broke; the link makes it again
        if not agent.is_fetching():
            time.sleep_ms(20)


try:
    run()
except Exception as e:  # a device at its prompt could never be upgraded again
    sys.print_exception(e)
    time.sleep(10)
    machine.reset()
