# Upgrades of policy silent wait for a maintenance window, and until nobody uses the device. Copy
# it as main.py; WINDOW may stand in boot.py: hours of the day, by its clock (UTC after NTP).
# Signed firmware and TLS need a Trust more, as in the project's main.py: this takes any firmware.
import sys
import time

import machine

import ota

window = globals().get("WINDOW", (2, 4))  # from 2:00 to 4:00
busy = False  # yours: True while somebody needs the device


def in_window():
    begin, end = window
    hour = time.gmtime()[3]
    return begin <= hour < end if begin < end else hour >= begin or hour < end


def may_begin(command):
    # Asked once a minute while a silent upgrade waits. One of policy standard is not asked for: it
    # is for what cannot wait. Before NTP has set the clock, nobody knows the hour.
    return time.gmtime()[0] > 2024 and in_window() and not busy


def run():
    link = ota.Link(
        IDENTIFIER,
        MQTT_SERVER,
        MQTT_PORT,
        user=PRODUCT_KEY + "&" + IDENTIFIER,
        password=DEVICE_SECRET,
    )
    agent = ota.init(PRODUCT_KEY, IDENTIFIER, link, on_silent=may_begin)
    print("version", agent.version)
    due = time.ticks_ms()
    while True:
        agent.poll()
        if link.up and time.gmtime()[0] <= 2024 and time.ticks_diff(time.ticks_ms(), due) >= 0:
            due = time.ticks_add(time.ticks_ms(), 60_000)
            try:
                import ntptime

                ntptime.settime()
            except Exception as e:
                print("no time yet:", e)
        if not agent.is_fetching():
            time.sleep_ms(20)


try:
    run()
except Exception as e:  # a device at its prompt could never be upgraded again
    sys.print_exception(e)
    time.sleep(10)
    machine.reset()
