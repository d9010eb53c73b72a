"""(d) As it is written often: requests, raw.read of a block, MD5, writeblocks."""

import sys
from hashlib import md5

import requests
from config import SIZE, URL
from esp32 import Partition
from meter import Meter


def main():
    raw = requests.get(URL).raw
    digest = md5()
    part = Partition(Partition.RUNNING).get_next_update()
    meter = Meter()
    done = 0
    meter.begin()
    while done < SIZE:
        data = raw.read(4096)
        digest.update(data)
        part.writeblocks(done >> 12, data)
        done += 4096
    meter.end()
    sys.exit(7)


main()
