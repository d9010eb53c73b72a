# Run by the board: what is in a small file, PATH.
from binascii import b2a_base64

with open(PATH, "rb") as f:  # noqa: F821 (comes before this text)
    answer(b2a_base64(f.read(16384)).decode().strip())  # noqa: F821
