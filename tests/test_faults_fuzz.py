"""The campaign's fuzzer: the same messages for a seed, and a judge that knows the protocol."""

import json

import pytest

from tools.faults import fuzz
from tools.faults.handmade import HAND


def text(msg_id="7", **data) -> bytes:
    return json.dumps(fuzz.good(msg_id, **data)).encode()


def test_same_seed_same_messages():
    one = fuzz.messages("1", 50, fuzz.BASES)
    assert one == fuzz.messages("1", 50, fuzz.BASES)
    assert one != fuzz.messages("2", 50, fuzz.BASES)


def test_messages_are_of_all_kinds():
    found = fuzz.messages("1", 2000, fuzz.BASES)
    verdicts = [fuzz.judged(message, False) for message in found]
    assert {True, False, None} == set(verdicts)
    assert any(len(message) > fuzz.MESSAGE_MAX for message in found)
    assert any(not message.isascii() for message in found)
    assert len(set(found)) > 1500


@pytest.mark.parametrize(
    "payload",
    [
        text(),
        text("x" * 64),
        text(12),
        text(policy="silent"),
        text(policy=" STANDARD "),
        text(sign="ABCDEF" + "0" * 26),
        text(firmwareVersion="9" * 100),
        text(url="https://127.0.0.1/x?y=%20"),
        text().replace(b'"size"', b'" size "'),
        text().ljust(16384),
    ],
)
def test_good_command(payload):
    assert fuzz.judged(payload, False) is True
    assert not fuzz.allowed(payload, False) & fuzz.REFUSING


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"[]",
        b"{}",
        text(""),
        text("x" * 65),
        text(True),
        text(size=0),
        text(size=True),
        text(size="12"),
        text(size=None),
        text(policy="now"),
        text(signMethod="sha256"),
        text(sign="0" * 31),
        text(firmwareVersion="a/b"),
        text(url="ftp://127.0.0.1/x"),
        text(url="http://127.0.0.1/x y"),
        text(url="http://127.0.0.1/".ljust(1025, "x")),
        text().ljust(16385),
    ],
)
def test_bad_command(payload):
    assert fuzz.judged(payload, False) is False
    assert fuzz.allowed(payload, False) == fuzz.REFUSING


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        text()[:-1],
        text() + b"x",
        text(1.5),
        text(size=1e9),
        text(url="http:"),
        text().replace(b'"size"', b'"size": 1, "size"'),
        text().replace(b"70000", b"NaN"),
    ],
)
def test_command_in_doubt(payload):
    assert fuzz.judged(payload, False) is None


def test_answer_may_lack_policy_and_size():
    assert fuzz.judged(text(policy=None, size=None), True) is True
    assert fuzz.judged(text(policy=None, size=None), False) is False
    assert fuzz.judged(text(sign=None), True) is False


@pytest.mark.parametrize("name", HAND)
def test_table_agrees_with_the_judge(name):
    payload, codes = HAND[name]
    good = fuzz.judged(payload, False)
    if good is not None:
        assert good == (200 in codes)
