"""
The simulated ESP32.

`port/` is what the device imports (by MICROPYPATH) in the place of the hardware; its modules run
on CPython as well, as `tools.device.port.NAME`. That folder must never come onto CPython's
sys.path: its `time` is the device's.
"""
