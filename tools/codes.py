"""
The codes of ota/protocol.py in words: what each one means and what to do about it.

The numbers stand in ota/protocol.py, the sentences here, the console's remark in
tools/platform/course.py. `python -m tools.codes FILE` writes the page docs/codes.md.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from ota import protocol
from tools.platform.course import remark_of


class Code(NamedTuple):
    """One code. name: as in ota/protocol.py, without the underscore; remark: "" = no failure."""

    number: int
    name: str
    cause: str
    cure: str
    remark: str


# name: (cause, cure)
_WORDS = {
    "ACCEPTED": ("The command was taken.", "Nothing to do."),
    "LATER": (
        "The command was taken; the device chooses when (policy silent).",
        "Wait, or let the application say yes in its hook, or restart the device.",
    ),
    "NOT_UNDERSTOOD": (
        "The message is no JSON object, longer than 16 KB, or a field is missing, of the wrong "
        "type or out of range.",
        "Compare the message with the table in the protocol page.",
    ),
    "POLICY": ("The policy is neither standard nor silent.", "Send one of the two."),
    "SIGN_METHOD": ("The sign method is not Md5.", "Send an MD5, with signMethod Md5."),
    "BUSY": (
        "An upgrade to another version runs.",
        "Wait for its outcome, or cancel it, then send the command again.",
    ),
    "URL": (
        "The URL is not http or https, too long, has characters that a URL may not have, or leads "
        "to a host, at once or by a redirect, that the device's URL_HOSTS does not name.",
        "Send a URL of at most 1,024 printable ASCII characters, of a host that is allowed.",
    ),
    "FAILED_BEFORE": (
        "This command was tried already and failed.",
        "Mend what its first report names; then send a command with a new msgId.",
    ),
    "PENDING": (
        "The running image is on trial and has not confirmed itself.",
        "Wait until the trial is over. It ends by itself, one way or the other.",
    ),
    "TOO_LARGE": (
        "The image is larger than the slot.",
        "Make the image smaller, or flash a partition table with larger slots by cable.",
    ),
    "NO_APPLICATION": (
        "The file is no ESP32 application image, or has no SHA-256 appended.",
        "Upload the application image of the build (micropython.bin, or .app-bin).",
    ),
    "OTHER_CHIP": (
        "The image was built for another chip.",
        "Build for the chip that the device has.",
    ),
    "NO_SLOT": (
        "There is no second slot, or no otadata partition.",
        "Flash a firmware with an OTA partition table by cable once.",
    ),
    "COMBINED": (
        "The file is the combined image (boot loader, table and application) of a first flash.",
        "Upload the application image alone (micropython.bin, or .app-bin).",
    ),
    "DAMAGED": (
        "The .gz cannot be inflated: it is damaged, or its window is not the one it tells.",
        "Pack the image anew: python -m tools image pack.",
    ),
    "NO_CONNECTION": (
        "No connection to the file server, or it broke too often.",
        "Check that the device reaches the host and port of the URL.",
    ),
    "HTTP_STATUS": (
        "The file server did not answer with the file; the detail is its status, 0 = no HTTP.",
        "Open the URL by hand: 403 = it ran out, 404 = no such file, 5xx = the server.",
    ),
    "STALLED": (
        "The file server went silent in the middle.",
        "Check the network, or allow longer waits in the settings.",
    ),
    "LENGTH": (
        "The length that the server tells differs from the command's, or the body ends early.",
        "Send the size of the file as it is on the server.",
    ),
    "REDIRECT": (
        "Too many redirects, or one from https to http, or to what is neither.",
        "Send the URL where the redirects end.",
    ),
    "NO_CA": (
        "The URL, or a redirect, is https, and the device has no CA to check the server with.",
        "Give the device the CA's certificate (CA in boot.py), or use http.",
    ),
    "MEMORY": (
        "The device ran out of memory.",
        "Free memory before the upgrade: the download needs its own code, and a connection.",
    ),
    "TOO_SLOW": (
        "The download did not end in the time allowed for all of it.",
        "Check the network, or allow more time in the settings.",
    ),
    "DIGEST": (
        "The digest of what was downloaded differs from the command's.",
        "Send the MD5 of the file as it is on the server.",
    ),
    "SIGNATURE": (
        "The manifest was not signed with a key that the device trusts, or was changed since.",
        "Sign it with the private key that belongs to PUBLIC_KEYS in the device's boot.py.",
    ),
    "UNSIGNED": (
        "The command has no manifest and signature, and the device takes signed firmware alone.",
        "Sign the firmware: python -m tools sign, or let the platform do it at the upload.",
    ),
    "MANIFEST": (
        "The manifest is signed, but not of the format that this agent reads.",
        "Sign with the tools of the same release as the agent.",
    ),
    "PRODUCT": ("The manifest is for another product.", "Sign it for the device's product key."),
    "BOARD": (
        "The manifest is for another board.",
        "Sign it for the name that BOARD has in the device's boot.py.",
    ),
    "UNFIT": (
        "The manifest is for another file: version, MD5 or size are not those of the command.",
        "Send the manifest that was made for this file and version, and the size.",
    ),
    "OLDER": (
        "The sequence number of the manifest is lower than one that the device has confirmed.",
        "Sign with a higher one; for a deliberate downgrade, see the page on trust.",
    ),
    "OTHER_BYTES": (
        "The manifest has the sequence number that the device has confirmed, for another file.",
        "Sign with a higher sequence number.",
    ),
    "SHA256": (
        "The MD5 of what was downloaded is right, its SHA-256 is not: somebody made a file to "
        "match the MD5.",
        "Find out who can change files on the server. The device kept its firmware.",
    ),
    "ERASE": ("The flash did not erase.", "Try again; if it stays, the flash is worn out."),
    "WRITE": ("The flash did not write.", "Try again; if it stays, the flash is worn out."),
    "READ_BACK": (
        "The flash reads back other bytes than were written.",
        "Try again; if it stays, the flash is worn out.",
    ),
    "SWITCH": (
        "The system refused to boot the new slot, since it finds the image not valid; or the boot "
        "record could not be written.",
        "Check the image with `python -m tools image inspect FILE`; if it is good, try again.",
    ),
    "NOT_STARTED": (
        "The new image did not start, or did not come as far as its own check.",
        "Try the image on a board with a cable, and read what it prints.",
    ),
    "SELF_TEST": (
        "The application's self-test said no, or did not come to an end in time.",
        "Read the device's log; mend the application, or the test.",
    ),
    "NOT_CONNECTED": (
        "The new image did not reach the platform in time.",
        "Check its network settings, and that the platform was up.",
    ),
    "OTHER_VERSION": (
        "The new image runs, but tells another version than the command did; it went back.",
        "Give the firmware on the platform the version that is built into the image.",
    ),
    "LATE": (
        "The new image had confirmed itself, then crashed three times soon after its start; the "
        "device went back to the image before.",
        "Try the image on a board with a cable, and read what it prints before it crashes.",
    ),
    "CANCELLED": ("The application cancelled the upgrade.", "Send a new command when it may."),
    "DESTROYED": (
        "The application called destroy() during the upgrade.",
        "Send a new command when the agent runs again.",
    ),
    "ARGUMENT": ("A call got an argument out of its range.", "See the call's own text."),
    "STATE": (
        "The call does not fit the state: after destroy(), or while poll() downloads.",
        "Ask is_fetching() first.",
    ),
    "MQTT": (
        "The MQTT client could not subscribe.",
        "Connect the client, then call init again; or use ota.Link, which connects by itself.",
    ),
    "HANDSHAKE": (
        "The https connection did not come about: no connection, or the handshake was cut or "
        "refused; the detail is the errno, or mbedTLS' number.",
        "Check host and port of the URL, and which TLS versions and ciphers the server has.",
    ),
    "EXPIRED": (
        "The server's certificate has expired, by the device's clock.",
        "Renew the certificate; check the device's clock.",
    ),
    "NOT_YET_VALID": (
        "The server's certificate is not valid yet, by the device's clock.",
        "Let the device reach an NTP server: without one its clock stands at the year 2000.",
    ),
    "OTHER_HOST": (
        "The server's certificate names another host than the URL.",
        "Use the name that the certificate has, or issue one for the URL's.",
    ),
    "UNKNOWN_CA": (
        "The server's certificate was not signed by the CA that the device has.",
        "Give the device the CA of that certificate (CA in boot.py).",
    ),
    "SELF_SIGNED": (
        "The server's certificate is signed by itself, and the device was not given it as its CA.",
        "Use a certificate of the device's CA, or make this one its CA.",
    ),
}


def _code(name: str, words: tuple[str, str]) -> Code:
    number = getattr(protocol, "_" + name)
    failure = number >= 410 and number // 10 != 48  # 48x: an error of a call, never sent
    return Code(number, name, *words, remark_of(number, 0) if failure else "")


CODES = {code.number: code for code in (_code(*item) for item in _WORDS.items())}


def sentence(number: int | None) -> str:
    """Cause and cure of a code for a person, "" for one that nobody knows."""
    code = CODES.get(number)
    return f"{code.cause} {code.cure}" if code else ""


def page() -> str:
    """The page for docs/: one row for each code."""
    lines = [
        "# Codes",
        "",
        "Made from `tools/codes.py` by `make docs`; the numbers stand in `ota/protocol.py`.",
        "Codes of 480 to 489 are errors of a call of `ota.OTA`; the platform never sees them.",
        "",
        "| code | name | cause | what to do | remark on the console |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code in CODES.values():
        cells = code.number, f"`{code.name}`", code.cause, code.cure, code.remark
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """argv: the file to write. Returns the exit status."""
    if len(argv) != 1:
        print("usage: python -m tools.codes FILE", file=sys.stderr)
        return 2
    Path(argv[0]).write_text(page(), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
