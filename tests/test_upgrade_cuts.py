"""
Whole upgrades with connection and power cut in the middle: they end well, and what was safely in
flash is not fetched again.

"Safely in flash" is read from the flash file itself, while the device cannot go on.
"""

import pytest

from tests.bench import BLOCK, UNIT, Bench, in_flash, settled, until
from tools.device.layout import GENERATIONS
from tools.image.firmware import SIZE as WHOLE

pytest_plugins = "tests.bench_fixtures"

NEW = "1.1.0"


class Download:
    """An upgrade to `image` into ota_1 that runs, and is cut."""

    def __init__(self, bench, device, image):
        self.bench, self.device, self.image = bench, device, image
        self.before = []  # (bytes that were in flash, how many of them may be fetched again)

    def reaches(self, count: int) -> None:
        """Waits until so many bytes are in flash."""
        until(lambda: self._safe() >= count)

    def cut_connection(self) -> None:
        self.bench.web.down()
        self.before.append((settled(self._safe), BLOCK))
        self.bench.web.up()

    def cut_power(self) -> None:
        self.device.power_cut()
        self.before.append((self._safe(), UNIT + BLOCK))
        self.device.start()

    def check(self) -> None:
        """Where it went on, by the server's log."""
        log = self.bench.platform.access_log
        assert [access.status for access in log] == [200] + [206] * len(self.before)
        for access, (safe, again) in zip(log[1:], self.before, strict=True):
            assert access.range == f"bytes={access.start}-"
            # Up to a block may have been in the device's buffer, so that it is not asked for.
            assert safe - again <= access.start <= safe + BLOCK

    def _safe(self) -> int:
        return in_flash(self.device, "ota_1", self.image)


def check_end(bench, device, batch, image) -> None:
    rows = bench.result(batch)
    assert rows == [("Succeeded", "", None, NEW)]
    assert device.running == "ota_1"
    assert in_flash(device, "ota_1", image) == image.stat().st_size


def test_whole_image_with_three_cuts_of_the_connection_and_two_of_the_power(make_bench, images):
    bench = make_bench(throttle=400_000)  # a cut has its time, also on a busy machine
    image = images(NEW, size=WHOLE)
    device = bench.device(images("1.0.0", size=WHOLE))
    batch = bench.offer(image, NEW)
    download = Download(bench, device, image)
    for at, cut in (
        (5 * BLOCK, download.cut_connection),
        (300_000, download.cut_power),
        (600_000, download.cut_connection),
        (900_000, download.cut_power),
        (1_200_000, download.cut_connection),
    ):
        download.reaches(at)
        cut()
    bench.release()
    check_end(bench, device, batch, image)
    download.check()
    assert [label for label, _ in device.boots] == ["ota_0"] * 3 + ["ota_1"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_power_and_connection_cut_into_either_slot(make_bench, images, generation):
    bench = make_bench(throttle=100_000)
    image = images(NEW)
    device = bench.device(images("1.0.0"), generation=generation)
    batch = bench.offer(image, NEW)
    download = Download(bench, device, image)
    download.reaches(UNIT + 3 * BLOCK)
    download.cut_power()
    download.reaches(2 * UNIT + 3 * BLOCK)
    download.cut_connection()
    bench.release()
    check_end(bench, device, batch, image)
    download.check()


@pytest.mark.parametrize("spoilt", [0, UNIT + 5])
def test_slot_that_changed_while_the_power_was_away_is_written_anew(make_bench, images, spoilt):
    bench = make_bench(throttle=100_000)
    image = images(NEW)
    device = bench.device(images("1.0.0"))
    batch = bench.offer(image, NEW)
    until(lambda: in_flash(device, "ota_1", image) > 2 * UNIT)
    device.stop()
    content = bytearray(device.slot_bytes("ota_1", spoilt + 1))
    content[spoilt] ^= 0x10
    device.load("ota_1", bytes(content))
    bench.release()
    device.start()
    check_end(bench, device, batch, image)
    assert [access.start > 0 for access in bench.platform.access_log] == [False, True, False]


# Where the power goes away: flash operation and kind of the cut. Counted from the first one (1 is
# the boot loader's, then NVS), as a part of them all (the slot), or from the last one of a clean
# upgrade: the switch about -29, the boot loader's -27, the confirmation -26 and -25, then NVS.
CUTS = (
    (1, "before"),
    (4, "torn:3"),
    (9, "random:1"),
    (0.3, "random:2"),
    (0.7, "torn:100"),
    (-40, "before"),
    (-29, "after"),
    (-28, "random:3"),
    (-27, "after"),
    (-26, "torn:26"),
    (-25, "before"),
    (-18, "after"),
    (-6, "torn:7"),
)


@pytest.fixture(scope="session")
def operations(tmp_path_factory, images) -> int:
    """Flash operations of a clean upgrade."""
    bench = Bench(tmp_path_factory.mktemp("clean"), images)
    device = bench.device(images("1.0.0"))
    bench.result(bench.offer(images(NEW), NEW))
    bench.hear("progress", "succeeded 100")
    count = settled(lambda: device.counters["operations"])
    bench.close()
    return count


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("at", "kind"), CUTS)
def test_power_cut_at_a_flash_operation(bench, images, operations, generation, at, kind):
    k = operations + at if at < 0 else int(operations * at) if at < 1 else at
    device = bench.device(images("1.0.0"), generation=generation, fault=f"{k}:{kind}")
    # A cut in the trial is a rollback like any other: the platform asks again.
    again = {"retries": 2, "interval_s": 0.5}
    assert bench.result(bench.offer(images(NEW), NEW, **again))[0][0] == "Succeeded"
    until(lambda: device.counters["operations"] > k, "the power was not cut")
    # Whatever runs now, what it told is true, and the next upgrade works.
    later = images("1.2.0")
    rows = bench.result(bench.offer(later, "1.2.0", **again))
    assert rows == [("Succeeded", "", None, "1.2.0")]
    assert in_flash(device, device.running, later) == later.stat().st_size


def test_flash_that_does_not_write_once_is_mended_in_a_second_round(bench, images, operations):
    image = images(NEW)
    device = bench.device(images("1.0.0"), fault=f"{int(operations * 0.5)}:skip")
    assert bench.result(bench.offer(image, NEW)) == [("Succeeded", "", None, NEW)]
    assert in_flash(device, device.running, image) == image.stat().st_size


def test_flash_that_fails_ends_the_attempt_and_the_next_one_works(bench, images, operations):
    device = bench.device(images("1.0.0"), fault=f"{int(operations * 0.5)}:error")
    rows = bench.result(bench.offer(images(NEW), NEW))
    assert rows[0][:2] == ("Failed", "Firmware Burn Failed")
    assert rows[0][2] in (450, 451)
    assert len(device.boots) == 1
    batch = bench.offer(images("1.2.0"), "1.2.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.2.0")]
