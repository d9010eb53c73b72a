"""
The ESP32's Wi-Fi as the application sees it. The link is set from outside, in the file
`<flash>.net`.

That file is JSON: {"up": bool, "ssid": str, "key": str}; without ssid every name and key will
do, without the file the link is up. It says only what `WLAN` answers; the bytes themselves pass
through a relay (tools/device/net.py), which is cut on its own. Source:
ports/esp32/network_wlan.c, modnetwork.h.
"""

import json
import os

STA_IF = 0
AP_IF = 1

STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
STAT_BEACON_TIMEOUT = 200
STAT_NO_AP_FOUND = 201
STAT_WRONG_PASSWORD = 202
STAT_ASSOC_FAIL = 203
STAT_HANDSHAKE_TIMEOUT = 204

_hostname = "mpy-esp32"
_interfaces = {}


def hostname(name=None):
    global _hostname
    if name is None:
        return _hostname
    _hostname = name


def country(code=None):
    return "XX"


def _link():
    try:
        with open(os.getenv("OTA_SIM_FLASH", "") + ".net") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


class WLAN:
    """
    One object for each interface, as on a board. Reconnects by itself once connect() was called.
    """

    IF_STA = STA_IF
    IF_AP = AP_IF

    def __new__(cls, interface=STA_IF):
        if interface not in (STA_IF, AP_IF):
            raise ValueError("interface")
        if interface not in _interfaces:
            _interfaces[interface] = wlan = object.__new__(cls)
            wlan._active = False
            wlan._wanted = None
            wlan._settings = {}
        return _interfaces[interface]

    def active(self, on=None):
        if on is None:
            return self._active
        self._active = bool(on)
        if not on:
            self._wanted = None
        return True

    def connect(self, ssid=None, key=None, **_):
        if not self._active:
            raise OSError("Wifi Not Started")
        if ssid is not None:
            self._wanted = (ssid, key or "")

    def disconnect(self):
        if not self._active:
            raise OSError("Wifi Not Started")
        self._wanted = None

    def status(self, param=None):
        if param == "rssi":
            return -60
        if not self._active or not self._wanted:
            return STAT_IDLE
        link = _link()
        if not link.get("up", True) or link.get("ssid") not in (None, self._wanted[0]):
            return STAT_NO_AP_FOUND
        if link.get("ssid") is not None and link.get("key", "") != self._wanted[1]:
            return STAT_WRONG_PASSWORD
        return STAT_GOT_IP

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def ifconfig(self, config=None):
        if config is not None:
            return None
        if self.isconnected():
            return "127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1"
        return ("0.0.0.0",) * 4

    def config(self, name=None, **settings):
        """config("mac"), config("ssid"), config(any=value). ValueError: unknown name."""
        if settings:
            self._settings.update(settings)
            return None
        if name == "mac":
            import machine

            return machine.unique_id()
        if name in ("ssid", "essid"):
            return self._wanted[0] if self._wanted else ""
        if name not in self._settings:
            raise ValueError("unknown config param")
        return self._settings[name]
