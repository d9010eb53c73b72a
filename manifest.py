# Freezes the device package into a firmware; boot.py is never frozen, it holds the settings.
metadata(version="0.1.0", license="MIT", description="Firmware upgrades over the air")
package("ota")
