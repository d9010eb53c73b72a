"""
The packets that the scripted broker reads: strict, see broker.py. Source: MQTT 3.1.1, by its
chapters.
"""


class Malformed(Exception):
    """What the device sent is not MQTT 3.1.1, or not what a device of ours sends."""


class Reader:
    """The body of a packet, field after field. Each method raises Malformed."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise Malformed(f"packet ends {size - self.left} bytes early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def pid(self) -> int:
        if pid := self.number(2):
            return pid
        raise Malformed("packet id 0")

    def text(self) -> str:  # 1.5.3
        try:
            text = self.take(self.number(2)).decode()
        except UnicodeDecodeError as error:
            raise Malformed("text that is not UTF-8") from error
        if "\0" in text:
            raise Malformed("text with a NUL")
        return text

    def topic(self) -> str:
        topic = self.text()
        if not topic or "+" in topic or "#" in topic:
            raise Malformed(f"topic {topic!r}")
        return topic

    def end(self) -> None:
        if self.left:
            raise Malformed(f"{self.left} bytes too many")


def cut(buffer: bytearray, longest: int) -> tuple[int, Reader] | None:
    """
    Takes the first packet off the buffer: its first byte and its body. None: not whole yet.
    longest: bytes. Raises Malformed.
    """
    size = 0
    for place in range(1, min(5, len(buffer))):  # 2.2.3
        size |= (buffer[place] & 127) << 7 * (place - 1)
        if buffer[place] < 128:
            break
    else:
        if len(buffer) >= 5:
            raise Malformed("remaining length of more than 4 bytes")
        return None
    end = place + 1 + size
    if end > longest:
        raise Malformed(f"packet of {end} bytes")
    if len(buffer) < end:
        return None
    packet = buffer[0], Reader(bytes(buffer[place + 1 : end]))
    del buffer[:end]
    return packet


def length(size: int) -> bytes:
    """A remaining length (2.2.3); a lie may need more than the 4 bytes that are allowed."""
    digits = bytearray()
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes(digits) + bytes((size,))
