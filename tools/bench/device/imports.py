"""What importing the libraries alone needs."""

import sys

import esp32  # noqa: F401
import machine  # noqa: F401
import requests  # noqa: F401
import umqtt.simple  # noqa: F401

sys.exit(7)
