"""
The console in a real browser (Debian's chromium): an operator uploads firmware, upgrades three
simulated devices, watches two succeed and one fail, and retries that one.
"""

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.bench import PRODUCT, app
from tests.console import NAME, PASSWORD
from tools import servers

pytest_plugins = "tests.bench_fixtures"

WAIT_MS = 60_000
NAMES = ("cellar", "garden", "kitchen")
FAILS = "garden"
# Chromium looks for the outside world at each start; here there is none.
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
_OPTIONS += ["--disable-component-update", "--no-first-run"]


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=servers.program("chromium"), args=_OPTIONS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, bench):
    """The console, with an operator logged in."""
    bench.platform.platform.access.add_operator(NAME, PASSWORD)
    context = chromium.new_context(base_url=f"http://127.0.0.1:{bench.platform.http_port}")
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.problems.append(said.text))
    page.goto("/")
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Batches")).to_be_visible()
    yield page
    context.close()


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name))


def test_upload_upgrade_watch_and_retry(page, bench, images):
    for name in NAMES:
        fault = "60:error" if name == FAILS else None  # a write to its flash fails, once
        told = images("1.0.0", app=app("progress_percent=1, progress_s=0"))
        bench.device(told, name, fault=fault)
    bench.platform.platform.files.throttle = 100_000  # so that a bar is seen on its way

    page.get_by_role("link", name="Firmware", exact=True).click()
    page.get_by_label("File").set_input_files(images("1.1.0"))
    page.get_by_label("Product").select_option(PRODUCT)
    page.get_by_label("Version").fill("1.1.0")
    page.get_by_label("Name", exact=True).fill("spring <b>release</b>")
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("link", name="Upgrade to spring").click()
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("heading", name="Batch 1")).to_be_visible()

    # What follows comes by itself: nobody loads the page again.
    page.evaluate("window.notLoadedAgain = true")
    seen = set()
    bar = row(page, "kitchen").get_by_role("progressbar")
    while "Succeeded" not in row(page, "kitchen").inner_text():
        seen.add(int(bar.get_attribute("value")))
        page.wait_for_timeout(50)
    assert len(seen) > 2, seen  # the bar has moved
    for name in NAMES:
        outcome = "Failed" if name == FAILS else "Succeeded"
        expect(row(page, name)).to_contain_text(outcome)
    expect(row(page, FAILS)).to_contain_text("Firmware Burn Failed (45")
    expect(row(page, "cellar")).to_contain_text("1.1.0")
    expect(row(page, FAILS)).to_contain_text("1.0.0")
    expect(page.locator("#content")).to_contain_text("Completed")
    assert page.evaluate("window.notLoadedAgain") is True

    retry = page.get_by_role("button", name=f"Retry {FAILS}")
    retry.focus()  # as from the keyboard
    page.keyboard.press("Enter")
    expect(row(page, FAILS)).to_contain_text("Succeeded")
    expect(row(page, FAILS)).to_contain_text("1.1.0")
    assert row(page, FAILS).get_by_role("cell").nth(3).inner_text() == "1"  # retries

    page.get_by_role("link", name=FAILS).click()
    log = page.get_by_role("table")
    for words in ("Failed (Firmware Burn Failed)", "To be Retried", "Succeeded", "1.1.0"):
        expect(log).to_contain_text(words)
    page.get_by_role("link", name="Firmware", exact=True).click()
    expect(page.get_by_role("rowheader", name="spring <b>release</b>")).to_be_visible()
    assert page.problems == []


def test_abort_while_it_runs(page, bench, images):
    bench.device(images("1.0.0"))
    bench.platform.platform.files.throttle = 20_000
    bench.offer(images("1.1.0"), "1.1.0", shares="100")
    page.goto("/batches/1")
    expect(row(page, "lamp")).to_contain_text("Upgrading")
    page.get_by_role("button", name="Abort").click()
    expect(page.locator("#content")).to_contain_text("Aborted")
    bench.platform.platform.files.throttle = None
    expect(row(page, "lamp")).to_contain_text("Succeeded")  # one that runs ends by itself
    assert page.problems == []


def test_on_a_phone_and_by_keyboard(page, bench):
    bench.platform.add_device(PRODUCT, "d" * 64)
    page.set_viewport_size({"width": 360, "height": 640})
    for path in ("/", "/firmware", "/devices", "/devices/" + "d" * 64, "/batches/new"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        fields = page.locator("input:visible, select:visible, textarea:visible, button:visible")
        for field in fields.all():
            box = field.bounding_box()
            assert box["height"] >= 24 or field.get_attribute("type") == "radio", path
            named = "e => (e.labels && e.labels.length > 0) || e.innerText || e.ariaLabel"
            assert field.evaluate(named), (path, field.get_attribute("name"))
    page.goto("/devices")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.problems == []
