"""
Tests of ota/trust.py, class Trust: which command is one that the owner signed, and what its digest
is. With the agent, so that the reply is seen, and that nothing was begun. TLS over real servers:
tests/test_trust_tls.py.

Source of the expected values: RFC 8017 (8.2.2, 9.2); docs/trust.md, "The manifest".
"""

from hashlib import md5, sha256

from agents import AgentCase
from fakes import SIGN, data
from journals import read_journal
from keys import MODULUS_2048, MODULUS_3072, padded, signed

from ota.agent import Journal
from ota.protocol import OTAError
from ota.trust import Trust

_SHA = "00112233445566778899aabbccddeeff" * 2
_RIGHT = object()
_OTHER_SHA = "ff" * 32
_SHA1 = b"0!0\t\x06\x05+\x0e\x03\x02\x1a\x05\x00\x04\x14"  # the name of SHA-1


def manifest(
    magic="ota1",
    product="pk",
    board="esp32",
    version="2.0",
    sign=SIGN,
    size=4096,
    sha=_SHA,
    sequence=7,
    back=0,
):
    fields = magic, product, board, version, sign, size, sha, "%010d" % sequence, "%010d" % back
    return " ".join([str(field) for field in fields])


class TrustCase(AgentCase):
    def setUp(self):
        super().setUp()
        self.trust = Trust((MODULUS_2048,), "esp32")
        self.signatures = {}

    def begin(self, base=""):
        # An agent at rest. base: the highest sequence that was confirmed, and its SHA-256.
        self.ready(trust=self.trust)
        self.agent._log.base = base

    def sign(self, text, bits=2048):
        # The signature of a manifest; each made once.
        if (text, bits) not in self.signatures:
            self.signatures[text, bits] = signed(padded(text, bits), bits)
        return self.signatures[text, bits]

    def code(self, text, signature=_RIGHT, **command):
        # The code of the reply to a command with this manifest; what is refused begins nothing.
        if signature is _RIGHT:
            signature = self.sign(text)
        before = read_journal().__dict__
        self.command(manifest=text, signature=signature, **command)
        self.poll()
        code = self.replies()[-1][1]
        if code >= 400:
            self.assertEqual(self.net.sockets, [])
            self.assertEqual(self.progress(), [])
            self.assertIsNone(self.agent._cmd)
            self.assertEqual(read_journal().__dict__, before)
        else:
            self.agent.cancel()
            self.poll(3)
            self.agent._log.code = 0
        del self.client.sent[:]
        return code


class SignatureTests(TrustCase):
    def test_signed_one_is_taken(self):
        self.begin()
        self.assertEqual(self.code(manifest()), 200)

    def test_key_of_3072_bits(self):
        self.trust.keys = (MODULUS_3072,)
        self.begin()
        text = manifest()
        self.assertEqual(self.code(text, self.sign(text, 3072)), 200)
        self.assertEqual(self.code(text), 441)  # the other key's

    def test_second_key_counts_too(self):
        self.trust.keys = (MODULUS_3072, MODULUS_2048)
        self.begin()
        text = manifest()
        self.assertEqual(self.code(text), 200)
        self.assertEqual(self.code(text, self.sign(text, 3072)), 200)

    def test_unsigned_is_442(self):
        self.begin()
        self.command()
        self.poll()
        self.assertEqual(self.replies(), [("m1", 442)])

    def test_half_of_it_is_442(self):
        self.begin()
        for name in ("manifest", "signature"):
            self.command(**{name: "x"})
            self.poll()
            self.assertEqual(self.replies()[-1], ("m1", 442))

    def test_unsigned_answer_to_get_is_442(self):
        self.start(trust=self.trust)
        self.poll(3)
        self.answer(data())
        self.poll()
        self.assertEqual([code for _, code in self.replies()], [442])

    def test_unsigned_is_taken_without_keys(self):
        self.trust.keys = ()
        self.begin()
        self.command()
        self.poll()
        self.assertEqual(self.replies(), [("m1", 200)])

    def test_forged_signatures_are_441(self):
        self.begin()
        text = manifest()
        good = self.sign(text)
        for signature in (
            "",
            good[:-1],
            "0" + good,
            good + "0",
            good[:-1] + ("0" if good[-1] != "0" else "1"),
            "0" * 512,
            "0" * 511 + "1",
            "f" * 512,
            "-" + good[1:],
            "x" * 512,
            good.replace("a", "_"),
            MODULUS_2048,
            good[:511] + "\n",
            self.sign(manifest(sequence=8)),
            17,
            [good],
            [],
            {},
            None,
            True,
        ):
            self.assertEqual(self.code(text, signature), 441, signature)

    def test_forged_manifests_are_441(self):
        self.begin()
        text = manifest()
        good = self.sign(text)
        for other in (
            text + " ",
            text + "\n",
            text[:-1] + "1",
            text.replace("pk", "pl"),
            text.upper(),
            text.encode().hex(),
            "",
            [text],
            {"manifest": text},
            17,
            None,
        ):
            self.assertEqual(self.code(other, good), 441, other)

    def test_padding_is_compared_whole(self):
        # What is signed here would need the private key; that a verifier looks at every byte is
        # what stands between a forger and one who takes a cube root. Source: RFC 8017, 8.2.2.
        self.begin()
        text = manifest()
        good = padded(text)
        digest = sha256(text.encode()).digest()
        short = b"\0\1" + b"\xff" * 8 + b"\0" + good[-51:]
        for block in (
            short + b"\x5a" * (256 - len(short)),  # short padding, bytes behind it
            good[:2] + b"\xff" * 8 + good[10:100] + b"\xfe" + good[101:],
            b"\0\2" + good[2:],  # block type of an encryption
            b"\0\0" + good[2:],
            padded(text, asn1=_SHA1),  # the name of another digest
            padded(text, asn1=_SHA1[:-1] + b"\x20"),
            padded(text, asn1=b""),
            padded(text, asn1=b"0/0\x0b\x06\t`\x86H\x01e\x03\x04\x02\x01\x04 "),  # without NULL
            padded(text, tail=b"\0"),
            padded(text, tail=b"\0" * 100),
            b"\0" * 224 + digest,
            padded(text + " "),
        ):
            self.assertEqual(len(block), 256)
            self.assertEqual(self.code(text, signed(block)), 441, block)

    def test_key_that_is_none_refuses_all(self):
        self.trust.keys = ("x" * 512, "", "0" * 512)
        self.begin()
        self.assertEqual(self.code(manifest()), 441)


class Scarce:
    """Keys for which there is no memory."""

    def __iter__(self):
        raise MemoryError


class FieldTests(TrustCase):
    def test_memory_that_is_short_is_436(self):
        # Not 441: it is no attack, and the platform may try again.
        self.begin()
        self.trust.keys = Scarce()
        self.assertEqual(self.code(manifest()), 436)

    def test_another_format_is_443(self):
        self.begin()
        for text in (
            manifest(magic="ota2"),
            manifest(magic=""),
            "signed, but no manifest",
            "",
            manifest().replace(" ", "\t"),
        ):
            self.assertEqual(self.code(text), 443, text)

    def test_another_product_is_444(self):
        self.begin()
        for product in ("pl", "p", "PK", "pk2", ""):
            self.assertEqual(self.code(manifest(product=product)), 444, product)

    def test_another_board_is_445(self):
        self.begin()
        for board in ("esp32s3", "esp3", "", "ESP32"):
            self.assertEqual(self.code(manifest(board=board)), 445, board)

    def test_another_file_is_446(self):
        self.begin()
        for text in (
            manifest(version="2.1"),
            manifest(sign="0" * 32),
            manifest(size=4097),
            manifest(size="04096"),
        ):
            self.assertEqual(self.code(text), 446, text)

    def test_command_for_another_file_is_446(self):
        self.begin()
        text = manifest()
        for more in ({"version": "2.1"}, {"sign": "0" * 32}, {"size": 4095}):
            self.assertEqual(self.code(text, **more), 446, more)

    def test_answer_that_tells_no_size_has_that_of_the_manifest(self):
        self.start(trust=self.trust)
        self.poll(3)
        text = manifest()
        self.answer(data(size=None, policy=None, manifest=text, signature=self.sign(text)))
        self.poll()
        self.assertEqual([code for _, code in self.replies()], [202])
        self.assertEqual(self.agent._cmd.size, 4096)

    def test_field_too_many_or_too_few_is_446(self):
        self.begin()
        for text in (manifest() + " x", manifest()[:-11]):
            self.assertEqual(self.code(text), 446, text)


class SequenceTests(TrustCase):
    def test_first_one_may_be_any(self):
        self.begin()
        for sequence in (0, 1, 4294967295):
            self.assertEqual(self.code(manifest(sequence=sequence)), 200, sequence)

    def test_higher_one_is_taken(self):
        self.begin("0000000007" + _SHA)
        self.assertEqual(self.code(manifest(sequence=8)), 200)
        self.assertEqual(self.code(manifest(sequence=1000000000)), 200)

    def test_older_one_is_447(self):
        self.begin("0000000010" + _SHA)
        for sequence in (0, 1, 9):
            self.assertEqual(self.code(manifest(sequence=sequence)), 447, sequence)

    def test_same_one_with_other_bytes_is_448(self):
        self.begin("0000000007" + _OTHER_SHA)
        self.assertEqual(self.code(manifest()), 448)

    def test_same_one_with_the_same_bytes_is_taken(self):
        self.begin("0000000007" + _SHA)
        self.assertEqual(self.code(manifest()), 200)

    def test_downgrade_that_says_so(self):
        self.begin("0000000010" + _SHA)
        self.assertEqual(self.code(manifest(sequence=7, back=10)), 200)

    def test_downgrade_from_another_one_is_447(self):
        # So an old one cannot be played again when the devices went on.
        self.begin("0000000011" + _SHA)
        for back in (10, 12, 0, 7):
            self.assertEqual(self.code(manifest(sequence=7, back=back)), 447, back)

    def test_is_raised_by_a_confirmation_alone(self):
        self.begin("0000000005" + _SHA)
        text = manifest(sequence=7)
        self.command(manifest=text, signature=self.sign(text))
        self.poll(2)
        found = read_journal()
        self.assertEqual((found.up, found.base), ("0000000007" + _SHA, "0000000005" + _SHA))
        self.trust.confirm(self.agent)
        self.assertEqual(self.agent._log.base, "0000000007" + _SHA)

    def test_never_falls(self):
        # Not by a downgrade either: what comes next has to be above the highest one.
        self.begin("0000000010" + _SHA)
        text = manifest(sequence=7, back=10)
        self.command(manifest=text, signature=self.sign(text))
        self.poll(2)
        self.trust.confirm(self.agent)
        self.assertEqual(self.agent._log.base, "0000000010" + _SHA)

    def test_survives_a_restart_with_the_record(self):
        journal = Journal()
        journal.base, journal.up = "0000000005" + _SHA, "0000000007" + _OTHER_SHA
        journal.write(4)
        found = read_journal()
        self.assertEqual((found.base, found.up), (journal.base, journal.up))


class DigestTests(TrustCase):
    def digest(self, data, sign=None, sha=None):
        # That of a download of data, as the agent has it made.
        sign = sign or md5(data).digest().hex()
        sha = sha or sha256(data).digest().hex()
        self.begin()
        text = manifest(sign=sign, sha=sha)
        self.command(sign=sign, manifest=text, signature=self.sign(text))
        self.poll()
        digest = self.agent.hash()
        digest.update(data[:3])
        digest.update(memoryview(data)[3:])
        return digest

    def test_is_that_of_the_md5(self):
        self.assertEqual(self.digest(b"abcdef").digest(), md5(b"abcdef").digest())

    def test_begins_anew(self):
        digest = self.digest(b"abcdef")
        digest.digest()
        digest = self.agent.hash()
        digest.update(b"abcdef")
        self.assertEqual(digest.digest(), md5(b"abcdef").digest())

    def test_md5_alone_is_449(self):
        # As with two files of the same MD5.
        digest = self.digest(b"abcdef", sha=_SHA)
        try:
            digest.digest()
        except OTAError as e:
            self.assertEqual(e.code, 449)
        else:
            self.fail("taken")

    def test_sha256_alone_is_no_digest(self):
        self.assertNotEqual(self.digest(b"abcdef", sign=SIGN).digest().hex(), SIGN)

    def test_neither_is_as_any_other_damage(self):
        self.assertNotEqual(self.digest(b"abcdef", SIGN, _SHA).digest().hex(), SIGN)
