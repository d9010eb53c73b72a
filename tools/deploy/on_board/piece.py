# Run by the board: one piece of a file into its place, PATH, AT, DATA. Twice is harmless.
import os

parts = PATH.split("/")[1:-1]  # noqa: F821 (come before this text)
for n in range(len(parts)):
    try:
        os.mkdir("/" + "/".join(parts[: n + 1]))
    except OSError:
        pass  # it is there
with open(PATH, "r+b" if AT else "wb") as f:  # noqa: F821
    f.seek(AT)  # noqa: F821
    f.write(DATA)  # noqa: F821
answer(str(len(DATA)))  # noqa: F821
