# Run by the board: the new files take the places of the old ones. MOVES: (new, path, old) each,
# new "" = the old one only goes. Twice is harmless: what was done is done.
import os


def there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


for new, path, old in MOVES:  # noqa: F821 (comes before this text)
    if new and not there(new):
        continue
    if there(path):
        if there(old):  # the oldest one stays: it is what the board had before us
            os.remove(path)
        else:
            os.rename(path, old)
    if new:
        os.rename(new, path)
if hasattr(os, "sync"):
    os.sync()
answer("done")  # noqa: F821
