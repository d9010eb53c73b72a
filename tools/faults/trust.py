"""
The signed mode of the campaign: the devices take signed firmware alone, and the platform signs.

By an environment variable, so that every process of the campaign knows.
"""

import os
import tempfile
from functools import lru_cache
from pathlib import Path

from tools.sign.keys import PrivateKey, generate
from tools.sign.manifest import Manifest, Signed, digests

VARIABLE = "OTA_FAULTS_SIGNED"
SIGNED = bool(os.environ.get(VARIABLE))
BOARD = "esp32"  # as in boot.py


@lru_cache(maxsize=1)
def key() -> PrivateKey:
    """The owner's, of this process: a case is played in one."""
    with tempfile.TemporaryDirectory() as folder:
        return generate(Path(folder, "key.pem"))


def signed(product: str, version: str, content: bytes, sequence: int) -> Signed:
    """What the owner signs; empty texts when the campaign is not in signed mode."""
    if not SIGNED:
        return Signed("", "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.bin")
        path.write_bytes(content)
        size, md5, sha256 = digests(path)
    return key().sign(Manifest(product, BOARD, version, md5, size, sha256, sequence))
