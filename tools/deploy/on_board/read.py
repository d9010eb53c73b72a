# Run by the board: a piece of a file, PATH, from AT on, at most SIZE bytes.
from binascii import b2a_base64

with open(PATH, "rb") as f:  # noqa: F821 (come before this text)
    f.seek(AT)  # noqa: F821
    answer(b2a_base64(f.read(SIZE)).decode().strip())  # noqa: F821
