"""
New images that do not prove themselves: each rolls back with nobody at hand, the old image tells
why, and is not talked into trying the same again.
"""

import pytest

from tests.bench import WDT_RESET, app, let_watchdog_bite, until
from tools.device.layout import GENERATIONS
from tools.image.archive import compiled
from tools.toolchain import ROOT

pytest_plugins = "tests.bench_fixtures"

BAD = "1.1.0"
HARD_RESET = 2  # machine.HARD_RESET
BURN_FAILED = "Firmware Burn Failed"


def of_another_version(name: str) -> bytes:
    """A module that this interpreter refuses: the byte behind the M is the .mpy version."""
    module = bytearray(compiled(name, ROOT / f"{name}.py"))
    module[1] ^= 1
    return bytes(module)


RESTARTS = {"main": "import machine\nmachine.reset()"}
HANG = "def hang():\n    while True:\n        pass\n"

# What is wrong with the image; the cause of the reset that ends its trial.
BROKEN = {
    "no ota": ({"ota/__init__": None, "main": app()}, HARD_RESET),
    "no agent": ({"ota/agent": None, "main": app()}, HARD_RESET),
    "no main": ({"main": None}, WDT_RESET),
    "syntax error in main": ({"main": "raise SyntaxError('invalid syntax')"}, WDT_RESET),
    "exception in main": ({"main": app(before="1 / 0\n")}, WDT_RESET),
    "agent of another .mpy version": (
        {"ota/agent": of_another_version("ota/agent"), "main": app()},
        HARD_RESET,
    ),
    "main of another .mpy version": ({"main": of_another_version("main")}, WDT_RESET),
    "hangs at import": ({"ota/stream": "while True: pass", "main": app()}, WDT_RESET),
    "hangs in poll": ({"main": app("self_test=hang", before=HANG)}, WDT_RESET),
    "hangs in main": ({"main": "while True: pass"}, WDT_RESET),
    "restarts": (RESTARTS, HARD_RESET),
    "no memory": ({"main": "b = []\nwhile True: b.append(bytes(1000))"}, WDT_RESET),
}


def trials(device) -> int:
    """How often the other image was started."""
    return [label for label, _ in device.boots].count("ota_1")


def roll_back(bench, image, cause=HARD_RESET, code=460):
    """Offers a broken image to the device and waits until it has told about it."""
    device = bench.devices[0]
    batch = bench.offer(image, BAD)
    if cause == WDT_RESET:
        # Only an image that hangs is sure to be seen: one that restarts is gone in 0.1 s.
        until(lambda: len(device.boots) == 2, lambda: f"no trial: {list(device.boots)}")
        let_watchdog_bite(device)
    assert bench.result(batch) == [("Failed", BURN_FAILED, code, "1.0.0")]
    bench.hear("version", "1.0.0", after=1)
    assert list(device.boots) == [("ota_0", 1), ("ota_1", HARD_RESET), ("ota_0", cause)]
    assert "succeeded 100" not in bench.heard("progress")
    assert BAD not in bench.heard("version")


@pytest.mark.parametrize("what", BROKEN)
def test_image_that_does_not_start_is_rolled_back(bench, images, what):
    modules, cause = BROKEN[what]
    bench.device(images("1.0.0"))
    roll_back(bench, images(BAD, extra_modules=modules), cause)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_image_that_was_rolled_back_is_followed_by_a_good_one(bench, images, generation):
    device = bench.device(images("1.0.0"), generation=generation)
    roll_back(bench, images(BAD, extra_modules=RESTARTS))
    assert bench.result(bench.offer(images("1.2.0"), "1.2.0")) == [
        ("Succeeded", "", None, "1.2.0")
    ]
    assert device.running == "ota_1"


@pytest.mark.parametrize(
    ("code", "main"),
    [
        (461, app("self_test=lambda: False")),
        (461, app("self_test=lambda: 1 / 0")),
        (461, app("self_test=lambda: None, trial_s=1")),
        (462, app("trial_s=1", ('settings.get("MQTT_PORT", 1883),', "1,"))),
        (462, app("trial_s=1", ('password=settings["DEVICE_SECRET"]', 'password="other"'))),
    ],
    ids=["bad", "raises", "never", "no broker", "wrong secret"],
)
def test_image_that_does_not_pass_is_rolled_back_with_the_cause(bench, images, code, main):
    bench.device(images("1.0.0"))
    roll_back(bench, images(BAD, app=main), code=code)


def test_self_test_may_take_its_time(bench, images):
    test = "count = []\ndef test():\n    count.append(1)\n    return len(count) > 20 or None\n"
    device = bench.device(images("1.0.0"))
    batch = bench.offer(images("1.1.0", app=app("self_test=test", before=test)), "1.1.0")
    assert bench.result(batch) == [("Succeeded", "", None, "1.1.0")]
    assert len(device.boots) == 2


def test_image_of_another_version_than_announced_is_rolled_back(bench, images):
    bench.device(images("1.0.0"))
    roll_back(bench, images("7.7.7"), code=463)


@pytest.mark.parametrize(
    ("line", "cause"), [("1 / 0", HARD_RESET), ("while True: pass", WDT_RESET)]
)
def test_application_that_breaks_at_once_is_rolled_back(bench, images, line, cause):
    bench.device(images("1.0.0"))
    main = app("", ("        application()\n", f"        {line}\n"))
    roll_back(bench, images(BAD, app=main), cause)


def test_retained_command_for_a_broken_image_is_tried_once_for_each_msg_id(bench, images):
    device = bench.device(images("1.0.0"))
    image = images(BAD, extra_modules=RESTARTS)
    url = bench.platform.url_of(bench.platform.upload("pk1", image, BAD))
    for count, msg_id in enumerate(("one", "two"), 1):
        command = bench.command(msg_id, image, BAD, url)
        # The broker sends it again with each subscription: after the rollback, and then ...
        for again in (
            lambda command=command: bench.say(command, retain=True),
            bench.wire.cut,
            device.reset,
            device.power_cut,
        ):
            replies = len(bench.heard("upgrade_reply"))
            again()
            device.start()
            bench.hear("upgrade_reply", "415", after=replies)
        assert trials(device) == count
    assert bench.heard("upgrade_reply").count("200") == 2
    assert {text for text in bench.heard("progress") if text[0] == "f"} == {"failed 96 460"}


def test_platform_retries_a_broken_image_as_often_as_it_says(bench, images):
    device = bench.device(images("1.0.0"))
    image = images(BAD, extra_modules=RESTARTS)
    batch = bench.offer(image, BAD, retries=1, interval_s=0.5)
    assert bench.result(batch) == [("Failed", BURN_FAILED, 460, "1.0.0")]
    assert trials(device) == 2


def test_image_whose_inner_hash_is_wrong_does_not_get_the_switch(bench, images, tmp_path):
    device = bench.device(images("1.0.0"))
    content = bytearray(images(BAD).read_bytes())
    content[-1] ^= 1
    spoilt = tmp_path / "spoilt.bin"
    spoilt.write_bytes(content)
    assert bench.result(bench.offer(spoilt, BAD)) == [("Failed", BURN_FAILED, 453, "1.0.0")]
    assert len(device.boots) == 1
