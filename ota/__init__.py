"""
Firmware upgrades over the air: the public names, loaded when first used. No work at import.

    agent = ota.init(PRODUCT_KEY, DEVICE_NAME, mqtt_client)
    while True:
        agent.poll()

Names: init, OTA (agent.py), OTAError (protocol.py), Link (link.py). init is OTA itself: the
guidance's name of the constructor.
"""


def __getattr__(name):
    if name == "Link":
        from .link import Link

        return Link
    if name not in ("init", "OTA", "OTAError"):
        raise AttributeError(name)
    from .agent import OTA, OTAError

    return OTAError if name == "OTAError" else OTA
