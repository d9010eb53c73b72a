"""
Firmware upgrades over the air: the public names, loaded when first used. No work at import.

    agent = ota.init(PRODUCT_KEY, DEVICE_NAME, mqtt_client)
    while True:
        agent.poll()

Names: init, OTA (agent.py), OTAError (protocol.py), Link (link.py). init is OTA itself: the guidance's name of the constructor.
"""


def __getattr__(name):
    if name in ("init", "OTA"):
        from .agent import OTA as value
    elif name == "OTAError":
        from .protocol import OTAError as value
    elif name == "Link":
        from .link import Link as value
    else:
        raise AttributeError(name)
    return value
