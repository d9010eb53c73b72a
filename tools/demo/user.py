"""
What a user edits: main.py and boot.py, for the simulated devices of the demo and the console.
"""

import re

from tools.toolchain import ROOT

_INIT = 'ota.init(settings["PRODUCT_KEY"], identifier, link, trust=trust)'


def application(good: bool) -> str:
    """main.py, as a user edits it: with a self-test, and telling each percent."""
    text = (ROOT / "main.py").read_text()
    if _INIT not in text:
        raise ValueError(f"main.py does not call {_INIT} any more")
    more = f"self_test=lambda: {good}, progress_percent=1, progress_s=0"
    return text.replace(_INIT, f"{_INIT[:-1]}, {more})")


def settings(product: str, identifier: str, secret: str, port: int) -> str:
    """boot.py, as a user fills it in."""
    text = (ROOT / "boot.py").read_text()
    values = {
        "WIFI_SSID": "home",
        "MQTT_SERVER": "127.0.0.1",
        "MQTT_PORT": port,
        "PRODUCT_KEY": product,
        "IDENTIFIER": identifier,
        "DEVICE_SECRET": secret,
    }
    for name, value in values.items():
        line = value if isinstance(value, int) else f'"{value}"'
        text, changed = re.subn(rf"^{name} = .*$", f"{name} = {line}", text, flags=re.M)
        if changed != 1:
            raise ValueError(f"boot.py has no line {name} = ...")
    return text
