# Runs after boot.py: keeps the device connected and upgradable while your application runs. Yours
# is the function `application`; freeze this file into your firmware, so that an upgrade brings a
# new one.
import sys
import time

import machine


def application():
    """
    Yours: called about 50 times a second, and has to come back soon (the agent answers within 10 s
    because you do).
    """


def problems(settings):
    """What is wrong with the settings of boot.py: a list of sentences, empty when all is well."""
    found = []
    for name in (
        "WIFI_SSID",
        "WIFI_PASSWORD",
        "MQTT_SERVER",
        "PRODUCT_KEY",
        "IDENTIFIER",
        "DEVICE_SECRET",
    ):
        value = settings.get(name)
        if value is None:
            found.append("%s is missing: add a line %s = ..." % (name, name))
        elif not isinstance(value, str):
            found.append('%s must be text: put it in quotes, like "text"' % name)
        elif not value:
            if name != "WIFI_PASSWORD":  # an open network has none
                found.append("%s is empty: fill it in" % name)
        elif name == "MQTT_SERVER" and any(c in "/: " for c in value):
            found.append("MQTT_SERVER must be a name or an address alone: %s" % value)
        elif name in ("PRODUCT_KEY", "IDENTIFIER") and not is_name(value):
            found.append("%s may have 64 of A-Z a-z 0-9 . _ - : @ at most: %s" % (name, value))
    port = settings.get("MQTT_PORT", 1883)
    if type(port) is not int or not 0 < port < 65536:
        found.append("MQTT_PORT must be a number from 1 to 65535, without quotes: %r" % (port,))
    return found


def is_name(text):
    # As the agent will have it: what goes into a topic.
    return len(text) <= 64 and all(c.isalpha() or c.isdigit() or c in "._-:@" for c in text)


def run(settings):
    found = problems(settings)
    for problem in found:
        print("boot.py:", problem)
    if found:
        return  # to the prompt, where it can be mended

    import ota

    identifier = settings["IDENTIFIER"]
    link = ota.Link(
        identifier,
        settings["MQTT_SERVER"],
        settings.get("MQTT_PORT", 1883),
        user=settings["PRODUCT_KEY"] + "&" + identifier,
        password=settings["DEVICE_SECRET"],
    )
    agent = ota.init(settings["PRODUCT_KEY"], identifier, link)
    print("ota: version", agent.version)
    alone = time.ticks_ms()  # since when; None = it was connected, or has been told
    while True:
        # First yours: a new firmware whose application fails must not have told its version yet.
        application()
        agent.poll()
        if link.up:
            alone = None
        elif alone is not None and time.ticks_diff(time.ticks_ms(), alone) > 15000:
            alone = None
            print(
                "main.py: no connection to %s:%d yet, going on trying." % (link.server, link.port)
            )
            print("main.py: are IDENTIFIER and DEVICE_SECRET those that the platform gave out?")
        if not agent.is_fetching():
            time.sleep_ms(20)


try:
    run(globals())
except Exception as e:
    # Nobody is at hand: a device that stays at the prompt could never be upgraded again.
    sys.print_exception(e)
    print("main.py: restarting in 10 s, Ctrl-C stops that")
    time.sleep(10)
    machine.reset()
