"""Firmware images for the ESP32: build them, look into them."""
