"""Another module with from_firmware_file(url), as a whole: it opens the connection itself."""

import sys

from config import PEER, URL
from meter import Meter


def main():
    module = __import__(PEER)
    meter = Meter()
    meter.begin()
    module.from_firmware_file(URL)
    meter.end()
    sys.exit(7)


main()
