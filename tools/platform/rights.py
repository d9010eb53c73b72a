"""
What a device may say and hear at a broker: what is below /sys/{product key}/{identifier}/, and
nothing else. For the embedded broker, for others that ask over HTTP, and as files of mosquitto.

Pure but for `write`. Source: docs/protocol.md, topics.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from tools.platform import wire
from tools.platform.model import PlatformError

_ITERATIONS = 101  # mosquitto_passwd's; a secret has 128 bits, so guessing is hopeless anyway
PASSWORDS, TOPICS = "passwords", "topics"


def may(user: str, topic: str) -> bool:
    """user: as in the login; topic: or the filter of a subscription."""
    product, found, identifier = user.partition("&")
    return bool(found) and topic.startswith(wire.own((product, identifier)))


def write(folder: Path, devices: Iterable[tuple[str, str, str]], platform: tuple[str, str]):
    """
    The files for mosquitto's password_file and acl_file. devices: product, identifier, secret;
    platform: its user name and password. Existing ones are replaced at once, so that a broker
    never reads half a file. Written by root, they belong to the owner of the folder: the broker
    may be another user, and reads them as such. Raises PlatformError for who cannot be in them.
    """
    users = [platform, *((f"{product}&{name}", secret) for product, name, secret in devices)]
    for user, _ in users:
        if ":" in user:
            raise PlatformError(f"{user!r}: mosquitto's password file knows no user with a colon")
    _replace(folder / PASSWORDS, (f"{user}:{_hashed(secret)}\n" for user, secret in users))
    _replace(folder / TOPICS, _topics(users))


def _topics(users):
    yield f"user {users[0][0]}\ntopic readwrite /sys/#\n"
    for user, _ in users[1:]:
        yield f"user {user}\ntopic readwrite {wire.own(user.split('&'))}#\n"


def _hashed(secret):
    # The format of mosquitto 2: PBKDF2 with SHA-512.
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, _ITERATIONS)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"$7${_ITERATIONS}$" + "$".join(parts)


def _replace(path, lines):
    part = path.with_suffix(".part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(file, "w") as stream:
        stream.writelines(lines)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(part, owner.st_uid, owner.st_gid)
    part.replace(path)
