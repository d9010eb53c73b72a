"""
The attacker suite: what somebody can do who publishes to the broker, or changes what lies on the
server, but has not the key. Each is refused with a code of its own, and the flash is as before.

One device takes all the cases that a worker has; it has confirmed sequence 5. With the broker or
the server in the hands of somebody else, by TLS: test_trust_tls.py. Source: docs/trust.md.
"""

import hashlib
import json
import random
from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.bench import PATIENCE, Bench, app
from tests.bench_files import FileServer, answer
from tools.sign import keys
from tools.sign.manifest import Manifest, digests

pytest_plugins = "tests.bench_fixtures"

PRODUCT, BOARD = "pk1", "esp32"
VERSION = "1.1.0"
CONFIRMED = 5
SHA256_NAME = bytes.fromhex("3031300d060960864801650304020105000420")
SHA1_NAME = bytes.fromhex("3021300906052b0e03021a05000414")

_numbers = count(1)


class Owner:
    """Who has the private key; it is used past `tools.sign`, too: to sign what is no good."""

    def __init__(self, folder):
        self.file = folder / "key.pem"
        self.key = keys.generate(self.file)
        self._numbers = load_pem_private_key(self.file.read_bytes(), None).private_numbers()

    @property
    def modulus(self):
        return self.key.modulus

    def raw(self, block: bytes) -> str:
        """The signature of any block of 256 bytes."""
        n = self._numbers.public_numbers.n
        return f"{pow(int.from_bytes(block, 'big'), self._numbers.d, n):0512x}"


def padded(text: str, name: bytes = SHA256_NAME, digest=hashlib.sha256) -> bytes:
    data = name + digest(text.encode()).digest()
    return b"\0\1" + b"\xff" * (256 - 3 - len(data)) + b"\0" + data


class Case:
    """A device that takes signed firmware alone, at 1.0.5, and a server."""

    def __init__(self, bench, files, owner):
        self.bench, self.files, self.owner = bench, files, owner
        self.device = bench.device(
            bench.images("1.0.0", app=app("tries=1, stall_s=1")),
            boot={"PUBLIC_KEYS": (owner.modulus,), "BOARD": BOARD},
        )
        self.image = bench.images(VERSION)
        self.running = bench.images("1.0.5", app=app("tries=1, stall_s=1"))
        self.serve(self.running.read_bytes())
        self.bench.say(self.command(self.running, "1.0.5", CONFIRMED))
        bench.hear("progress", "succeeded 100")
        assert self.device.running == "ota_1"

    def serve(self, body: bytes):
        self.files.requests.clear()
        self.files.paths = {"/a.bin": answer("200 OK", body)}

    def manifest(self, image=None, version=VERSION, sequence=CONFIRMED + 1, **other) -> Manifest:
        size, md5, sha256 = digests(image or self.image)
        fields = {
            "product": PRODUCT,
            "board": BOARD,
            "version": version,
            "md5": md5,
            "size": size,
            "sha256": sha256,
            "sequence": sequence,
        }
        return Manifest(**(fields | other))

    def command(self, image=None, version=VERSION, sequence=CONFIRMED + 1, **other) -> str:
        """Of the owner. other: fields of `data` put in place of the good ones."""
        text = str(self.manifest(image, version, sequence))
        signed = {"manifest": text, "signature": self.owner.key.sign(text).signature}
        fields = {"url": self.files.url + "/a.bin"} | signed | other
        return self.bench.command(f"id-{next(_numbers)}", image or self.image, version, **fields)

    def signed(self, manifest: Manifest) -> dict:
        return self.owner.key.sign(manifest)._asdict()

    def flash(self) -> tuple:
        """Both slots and the boot records."""
        whole = (self.device.folder / "flash.bin").read_bytes()
        return whole[0xD000:0x310000]

    def refused(self, payload: str) -> int:
        """Sends it: the code of the reply. Nothing was fetched, no byte of flash is another."""
        before, flash = len(self.bench.heard("upgrade_reply")), self.flash()
        begun = len(self.bench.heard("progress"))
        self.bench.say(payload)
        code = self.bench.hear("upgrade_reply", ".*", after=before)[0]
        assert self.files.requests == []
        assert len(self.bench.heard("progress")) == begun
        assert self.flash() == flash
        return int(code)

    def fails(self, payload: str) -> str:
        """Sends it; it is taken on: how it ended. What runs, and its record, are as before."""
        before = len(self.bench.heard("progress"))
        slot = self.device.slot_bytes("ota_1", self.running.stat().st_size)
        record = self.flash()[0x1000:0x2000]
        self.bench.say(payload)
        ended = self.bench.hear("progress", "(failed|succ).*", after=before)[0]
        assert self.device.slot_bytes("ota_1", len(slot)) == slot
        assert self.flash()[0x1000:0x2000] == record
        assert len(self.device.boots) == 2
        return ended


@pytest.fixture(scope="module")
def one(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("attacks")
    bench = Bench(folder, images)
    with FileServer() as files:
        yield Case(bench, files, Owner(folder))
    bench.close()


@pytest.fixture
def case(one):
    one.serve(one.image.read_bytes())
    one.files.requests.clear()
    yield one
    assert one.device.running == "ota_1"


# The signature


def test_unsigned(case):
    plain = json.loads(case.command())
    del plain["data"]["manifest"], plain["data"]["signature"]
    assert case.refused(json.dumps(plain)) == 442


def test_forged_signature(case):
    other = rsa.generate_private_key(65537, 2048)
    stranger = keys.PrivateKey(other)
    text = str(case.manifest())
    assert case.refused(case.command(signature=stranger.sign(text).signature)) == 441
    noise = random.Random(1).randbytes(256).hex()
    assert case.refused(case.command(signature=noise)) == 441


def test_signature_of_another_manifest(case):
    other = case.owner.key.sign(case.manifest(sequence=99)).signature
    assert case.refused(case.command(signature=other)) == 441


def test_manifest_changed_after_it_was_signed(case):
    text = str(case.manifest()).replace("0000000006 0000000000", "0000000099 0000000000")
    assert case.refused(case.command(manifest=text)) == 441


def test_short_padding(case):
    # Bleichenbacher 2006: a verifier that stops reading behind the digest can be forged for small
    # exponents. Here the whole block counts, whatever the exponent.
    text = str(case.manifest())
    digest = SHA256_NAME + hashlib.sha256(text.encode()).digest()
    short = b"\0\1" + b"\xff" * 8 + b"\0" + digest
    block = short + bytes(256 - len(short))
    assert case.refused(case.command(signature=case.owner.raw(block))) == 441


def test_wrong_name_of_the_digest(case):
    text = str(case.manifest())
    for block in (
        padded(text, SHA1_NAME, hashlib.sha1),
        padded(text, SHA1_NAME),
        padded(text, b""),
    ):
        assert case.refused(case.command(signature=case.owner.raw(block))) == 441


def test_bytes_behind_the_digest(case):
    text = str(case.manifest())
    good = padded(text)
    block = good[:2] + good[3:] + b"\0"
    assert case.refused(case.command(signature=case.owner.raw(block))) == 441
    signature = case.owner.key.sign(text).signature
    assert case.refused(case.command(signature=signature + "00")) == 441


def test_manifest_of_another_format(case):
    text = str(case.manifest()).replace("ota1", "ota2")
    signature = case.owner.key.sign(text).signature
    assert case.refused(case.command(manifest=text, signature=signature)) == 443


# The manifest of something else


def test_another_product(case):
    signed = case.signed(case.manifest(product="pk2"))
    assert case.refused(case.command(**signed)) == 444


def test_another_board(case):
    signed = case.signed(case.manifest(board="esp32s3"))
    assert case.refused(case.command(**signed)) == 445


def test_another_version_than_announced(case):
    # A device told "9.9.9" would never report it, and be offered it again for ever.
    signed = case.signed(case.manifest(version="9.9.9"))
    assert case.refused(case.command(**signed)) == 446


def test_another_file_than_announced(case):
    signed = case.signed(case.manifest(image=case.running))
    assert case.refused(case.command(**signed)) == 446


# No way back


def test_older_sequence(case):
    assert case.refused(case.command(sequence=CONFIRMED - 1)) == 447


def test_same_sequence_with_other_bytes(case):
    assert case.refused(case.command(sequence=CONFIRMED)) == 448


def test_replayed_command(case):
    # Recorded when it was good: of the version that runs it starts nothing, of one before it is
    # older.
    recorded = case.command(sequence=CONFIRMED - 2)
    assert case.refused(recorded) == 447
    same = case.command(case.running, "1.0.5", CONFIRMED)
    before = len(case.bench.heard("progress"))
    case.bench.say(same)
    assert case.bench.hear("progress", "succ.*", after=before)[0] == "succeeded 100"
    assert case.files.requests == []
    assert len(case.device.boots) == 2


def test_replayed_downgrade(case):
    # Good for devices that had confirmed 4 and nothing above.
    signed = case.signed(case.manifest(sequence=2, back_from=4))
    assert case.refused(case.command(**signed)) == 447


# Another file behind the URL


def test_swapped_file(case):
    case.serve(case.running.read_bytes())
    assert case.fails(case.command()).endswith(" 440")


def test_two_files_of_one_md5(case):
    # The owner's SHA-256 is that of another file, its MD5 is that of the file which comes.
    other = hashlib.sha256(b"what the owner built").hexdigest()
    signed = case.signed(case.manifest(sha256=other))
    assert case.fails(case.command(**signed)).endswith(" 449")


def test_bytes_behind_the_image(case):
    case.serve(case.image.read_bytes() + b"\0" * 16)
    assert case.fails(case.command()) == "failed 0 433"


def test_endless_body(case):
    # Whatever comes behind the size of the manifest is not taken; what came has to be right.
    other = bytearray(case.image.read_bytes())
    other[-1] ^= 1

    def endless(sock, request):
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + other)
        while True:
            sock.sendall(b"\xff" * 4096)

    case.files.paths = {"/a.bin": endless}
    assert case.fails(case.command()).endswith(" 440")


# What it takes


def test_good_one_is_taken_after_all_that(tmp_path, images, files):
    """On a device of its own, since it restarts; and the downgrade that says so, after it."""
    bench = Bench(tmp_path, images)
    try:
        case = Case(bench, files, Owner(tmp_path))
        files.requests.clear()
        assert case.refused(case.command(manifest=None)) == 441
        case.serve(case.image.read_bytes())
        before = len(bench.heard("progress"))
        bench.say(case.command())
        bench.hear("progress", "succeeded 100", after=before)
        bench.hear("version", VERSION)

        old = images("1.0.0", app=app("tries=1, stall_s=1"))
        case.serve(old.read_bytes())
        plain = case.command(old, "1.0.0", 1)
        assert case.refused(plain) == 447
        down = case.signed(case.manifest(old, "1.0.0", sequence=1, back_from=CONFIRMED + 1))
        before = len(bench.heard("version"))
        bench.say(case.command(old, "1.0.0", **down))
        bench.hear("version", "1.0.0", after=before)
        # The highest one stays: what is older than that is still refused, the next one is not.
        files.requests.clear()
        assert case.refused(case.command(sequence=CONFIRMED)) == 447
        assert case.refused(case.command(case.running, "1.0.5")) == 448
    finally:
        bench.close()


def test_platform_signs_what_is_uploaded(make_bench, images, tmp_path):
    owner = Owner(tmp_path)
    bench = make_bench(signing_key=owner.file)
    device = bench.device(images("1.0.0"), boot={"PUBLIC_KEYS": (owner.modulus,), "BOARD": BOARD})
    device.wait("ota: version 1.0.0 signed")
    for version, slot in (("1.1.0", "ota_1"), ("1.2.0", "ota_0")):
        assert bench.result(bench.offer(images(version), version))[0][0] == "Succeeded"
        assert device.running == slot
    # The first one again: it is older than what was confirmed.
    batch = bench.platform.upgrade(1, ["lamp"])
    row = bench.platform.wait(batch, PATIENCE)[0]
    assert (row.status, row.remark, row.code) == ("Failed", "Firmware Verification Failed", 447)
