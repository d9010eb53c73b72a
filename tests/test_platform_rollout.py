"""Gradual roll-out by tables: which device is in which share, and when the next one begins."""

import pytest

from tools.platform import rollout
from tools.platform.model import Batch, PlatformError
from tools.platform.rollout import NEXT, STAY, STOP, Counts


def batch(shares="10,50,100", failures=20, wave=0, token="t"):
    times = {"timeout_s": 60, "interval_s": 60, "created": 0, "ends": 1e9}
    return Batch(
        1, 1, "standard", retries=0, **times, token=token, shares=shares, failures=failures,
        wave=wave,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "devices", "sizes"),
    [
        ("100", 7, [7]),
        ("10,50,100", 10, [1, 4, 5]),
        ("10,50,100", 1, [1, 0, 0]),
        ("1,100", 1000, [10, 990]),
        ("33,66,100", 10, [4, 3, 3]),
        ("1,2,3,100", 2, [1, 0, 0, 1]),
    ],
)
def test_sizes_of_the_shares(shares, devices, sizes):
    names = [f"d{number}" for number in range(devices)]
    waves = rollout.waves(batch(shares), names)
    assert sorted(waves) == sorted(names)
    assert [list(waves.values()).count(wave) for wave in range(len(sizes))] == sizes


def test_another_batch_begins_with_others():
    names = [f"d{number}" for number in range(200)]
    first, second = (rollout.waves(batch(token=token), names) for token in ("a", "b"))
    assert first != second
    assert first == rollout.waves(batch(token="a"), names[::-1])


@pytest.mark.parametrize(
    ("counts", "decision"),
    [
        (Counts(10, 0, 0, 9), STAY),
        (Counts(10, 9, 2, 9), STAY),
        (Counts(10, 10, 2, 9), NEXT),  # 20 % is not above 20 %
        (Counts(10, 10, 0, 9), NEXT),
        (Counts(10, 3, 3, 9), STOP),  # at once, whoever still runs
        (Counts(10, 10, 10, 9), STOP),
        (Counts(0, 0, 0, 9), NEXT),  # an empty share
    ],
)
def test_decisions(counts, decision):
    assert rollout.decide(batch(), counts) == decision


@pytest.mark.parametrize(
    ("given", "counts", "decision"),
    [
        ({"wave": 2}, Counts(10, 10, 0, 9), STAY),
        ({"wave": 2}, Counts(10, 10, 3, 9), STOP),
        ({"failures": 0}, Counts(1000, 1, 1, 9), STOP),
        ({"failures": 100}, Counts(3, 3, 3, 9), NEXT),
        ({"shares": "100"}, Counts(3, 3, 0, 9), STAY),
        ({}, Counts(1, 1, 1, 0), STAY),  # nothing is left to be stopped
    ],
)
def test_decisions_at_the_ends(given, counts, decision):
    assert rollout.decide(batch(**given), counts) == decision


@pytest.mark.parametrize(
    ("shares", "failures"),
    [
        ("", 10), ("50", 10), ("50,50,100", 10), ("100,50", 10), ("0,100", 10), ("-5,100", 10),
        ("x", 10), ("5,,100", 10), ("5,101", 10), ("1,2,3,4,5,6,7,8,9,10,100", 10),
        ("100", -1), ("100", 101),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(shares, failures):
    with pytest.raises(PlatformError):
        rollout.check(shares, failures)


@pytest.mark.parametrize("shares", ["100", "5,25,100", "1,2,3,4,5,6,7,8,9,100", " 5, 100 "])
def test_settings_that_can_be(shares):
    rollout.check(shares, 0)
