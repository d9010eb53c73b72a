"""
Firmware upgrades over the air: the public names, loaded when first used. No work at import.

    agent = ota.init(PRODUCT_KEY, DEVICE_NAME, mqtt_client)
    while True:
        agent.poll()

Names: init, OTA (agent.py), Link (stream.py), OTAError. init is OTA itself: the guidance's name of
the constructor.
"""

import gc
import sys


class OTAError(Exception):
    """
    What went wrong, as a number. code: int, 410 to 482 of protocol.py's table; detail: int, the
    errno or the HTTP status, 0 = none.
    """

    def __init__(self, code, detail=0):
        self.code = code
        self.detail = detail


def drop(*names):
    """
    Forgets files of ours that were loaded for a while: code costs heap. What of it still runs may
    go on.
    """
    for name in names:
        sys.modules.pop("ota." + name, None)
        globals().pop(name, None)
    gc.collect()


def __getattr__(key):
    gc.collect()
    if key == "Link":
        from .stream import Link as found
    elif key in ("init", "OTA"):
        from .agent import OTA as found
    else:
        raise AttributeError(key)
    return found
