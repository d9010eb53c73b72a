"""
Other bytes in the place of good ones: heads and bodies of answers, rewritten.

Takes bytes, gives bytes. Source: RFC 9112 (2.2 line ends, 5 names, 7.1 chunks).
"""

import re

_BLOCK = 4096  # bytes: the device looks at the first so many before it erases anything


def lower_case(told: bytes) -> bytes:
    return re.sub(rb"(?m)^[\w-]+:", lambda name: name[0].lower(), told)


def keep_alive(told: bytes) -> bytes:
    return told.replace(b"Connection: close", b"Connection: keep-alive")


def lf_alone(told: bytes) -> bytes:
    return told.replace(b"\r\n", b"\n")


def chunked(content: bytes) -> bytes:
    """In two chunks and the last one."""
    half = len(content) // 2
    pieces = (content[:half], content[half:], b"")
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def flipped(content: bytes, start: int = 0) -> bytes:
    """All bits the other way round, from start on."""
    return content[:start] + bytes(byte ^ 0xFF for byte in content[start:])


def flipped_later(content: bytes) -> bytes:
    return flipped(content, _BLOCK)


def last_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def longer(content: bytes) -> bytes:
    return content + bytes(100)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]
