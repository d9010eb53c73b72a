"""(a) The limit: socket, MD5, writeblocks, one buffer, no check of anything."""

import socket
import sys
from hashlib import md5

from config import HOST, PATH, PORT, SIZE
from esp32 import Partition
from meter import Meter


def main():
    sock = socket.socket()
    sock.connect(socket.getaddrinfo(HOST, PORT)[0][-1])
    sock.write(b"GET %s HTTP/1.0\r\n\r\n" % PATH.encode())
    while sock.readline() != b"\r\n":
        pass
    buf = bytearray(4096)
    digest = md5()
    part = Partition(Partition.RUNNING).get_next_update()
    meter = Meter()
    done = 0
    meter.begin()
    while done < SIZE:
        sock.readinto(buf)
        digest.update(buf)
        part.writeblocks(done >> 12, buf)
        done += 4096
    meter.end()
    sys.exit(7)


main()
