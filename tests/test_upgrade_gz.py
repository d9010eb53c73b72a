"""Whole upgrades with a .gz: it is inflated into the slot, resumed, refused."""

import gzip

import pytest

from tests.bench import LAMP, PRODUCT, app, in_flash
from tools.image import wrong
from tools.image.pack import pack

pytest_plugins = "tests.bench_fixtures"

SUCCESS = [("Succeeded", "", None, "2.0.0")]


@pytest.fixture
def packed(tmp_path, images):
    """Makes the .gz of an image: packed(image, data=None, window=12)."""

    def make(image, data=None, window=12):
        path = tmp_path / f"{image.stem}-{window}.gz"
        path.write_bytes(pack(image.read_bytes(), window) if data is None else data)
        return path

    return make


@pytest.mark.parametrize("window", [9, 12, 15])
def test_every_byte_of_it_comes_into_the_slot(bench, images, packed, window):
    # 32 KiB in one piece are more than a small heap has.
    device = bench.device(images("1.0.0"), heapsize="240k" if window == 15 else "160k")
    image = images("2.0.0")
    assert bench.result(bench.offer(packed(image, window=window), "2.0.0")) == SUCCESS
    assert device.running == "ota_1"
    assert in_flash(device, "ota_1", image) == image.stat().st_size


def test_one_that_does_not_tell_its_window(bench, images, packed):
    device = bench.device(images("1.0.0"), heapsize="240k")
    image = images("2.0.0")
    file = packed(image, gzip.compress(image.read_bytes()))
    assert bench.result(bench.offer(file, "2.0.0")) == SUCCESS
    assert in_flash(device, "ota_1", image) == image.stat().st_size


def test_connection_that_breaks_is_resumed(make_bench, images, packed):
    bench = make_bench()
    device = bench.device(images("1.0.0", app=app("tries=9")))
    image = images("2.0.0")
    file = packed(image)
    size = file.stat().st_size
    bench.web.cut_after(size // 3, size // 4)
    assert bench.result(bench.offer(file, "2.0.0")) == SUCCESS
    assert in_flash(device, "ota_1", image) == image.stat().st_size


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda data: data[:500] + bytes(200) + data[700:], 425),
        (lambda data: data[: len(data) // 2], 425),
        (lambda data: b"\x1f\x8b\x09" + data[3:], 421),
        (lambda data: data[:16] + b"\x10" + data[17:], 425),
        (lambda data: data[:17] + b"\xff\xff\xff\x00" + data[21:], 420),
    ],
)
def test_damaged_one_is_refused(bench, images, packed, spoil, code):
    device = bench.device(images("1.0.0"))
    image = images("2.0.0")
    file = packed(image, spoil(pack(image.read_bytes())))
    assert [row[2] for row in bench.result(bench.offer(file, "2.0.0"))] == [code]
    assert device.running == "ota_0"


def test_text_inside_is_no_application_and_erases_nothing(bench, images, packed, tmp_path):
    device = bench.device(images("1.0.0"))
    text = wrong.text(tmp_path / "a.txt")
    before = device.slot_bytes("ota_1", 4096)
    assert [r[2] for r in bench.result(bench.offer(packed(text), "2.0.0"))] == [421]
    assert device.slot_bytes("ota_1", 4096) == before


def test_window_that_the_heap_cannot_give_is_refused_before_the_first_erase(bench, images, packed):
    device = bench.device(images("1.0.0"), heapsize="120k")
    before = device.slot_bytes("ota_1", 4096)
    file = packed(images("2.0.0"), window=15)
    assert [r[2] for r in bench.result(bench.offer(file, "2.0.0"))] == [436]
    assert device.slot_bytes("ota_1", 4096) == before


def test_same_image_again_erases_nothing_in_the_slot(bench, images):
    # The slot holds it already: as after an upgrade that was taken back.
    image = images("2.0.0")
    device = bench.device(images("1.0.0"))
    uploaded = bench.platform.upload(PRODUCT, image, "2.0.0")
    assert bench.result(bench.platform.upgrade(uploaded, [LAMP])) == SUCCESS
    assert bench.result(bench.offer(images("1.0.0"), "1.0.0"))[0][0] == "Succeeded"
    before = device.counters["erases"]
    assert bench.result(bench.platform.upgrade(uploaded, [LAMP])) == SUCCESS
    # Boot records and the journal only.
    assert device.counters["erases"] - before < 8
    assert in_flash(device, "ota_1", image) == image.stat().st_size
