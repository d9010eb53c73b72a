"""
What the devices of the campaign run as `main`: the agent in a loop of its own, as README shows.

Runs on MicroPython, with the names of boot.py: the settings, OPTIONS (dict, for ota.init), and,
when a case puts them there, `begin(agent, link)`, called once, and `step(agent, link)`, called
before each poll. Says `version ...` at its start, and `idle N` when nothing is left to do, N =
bytes of heap in use.
"""

import gc
import sys
import time

import machine

_QUIET = const(25)  # polls in a row with nothing to do


def run(names):
    import ota

    link = ota.Link(
        names["IDENTIFIER"],
        names["MQTT_SERVER"],
        names["MQTT_PORT"],
        user=names["PRODUCT_KEY"] + "&" + names["IDENTIFIER"],
        password=names["DEVICE_SECRET"],
    )
    link.back_off_s = 1
    options = names["OPTIONS"]
    if names["PUBLIC_KEYS"]:
        from ota.trust import Trust

        options["trust"] = Trust(names["PUBLIC_KEYS"], names["BOARD"])
    agent = ota.init(names["PRODUCT_KEY"], names["IDENTIFIER"], link, **options)
    print("version", agent.version)
    if "begin" in names:
        names["begin"](agent, link)
    step = names.get("step")
    quiet = 0
    while True:
        if step:
            step(agent, link)
        agent.poll()
        if agent.is_fetching():
            quiet = 0
            continue
        if not link.up or link.unacked or not agent.tested:
            quiet = 0
        quiet += 1
        if quiet == _QUIET:
            gc.collect()
            print("idle", gc.mem_alloc())
        time.sleep_ms(2)


try:
    run(globals())
except Exception as e:
    # As the project's main.py does, without the time to press Ctrl-C.
    sys.print_exception(e)
    time.sleep_ms(50)
    machine.reset()
