"""The console's pages without a browser: who gets in, and what no text in a field can do."""

import concurrent.futures
import functools
import html
import json
import socket
import time

import httpx
import pytest
import sqlalchemy as sa
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from tests.console import NAME, PASSWORD, Browser, furnish, told
from tools.platform import access as access_module
from tools.platform.local import LocalPlatform
from tools.platform.model import Batch, PlatformError, Session

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE devices; --",
    "{{ 7 * 7 }}",
    "' OR '1'='1",
    "</td><td>gap",
    "javascript:alert(1)",
)
UNSTORABLE = ("a\0b", "line\nfeed", "\x1b[2J", "x" * 2000)


@pytest.fixture
def platform(tmp_path, monkeypatch):
    cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    monkeypatch.setattr(access_module.PasswordHash, "recommended", lambda: cheap)
    with LocalPlatform(tmp_path / "platform") as platform:
        platform.platform.access.add_operator(NAME, PASSWORD)
        yield platform


@pytest.fixture
def browser(platform):
    browser = Browser(platform)
    assert browser.log_in().status_code == 303
    return browser


@pytest.fixture
def furnished(platform, tmp_path):
    furnish(platform, tmp_path)
    return platform


PAGES = ("/", "/firmware", "/devices", "/batches/new", "/batches/1", "/devices/d1")
FORMS = (
    "/batches",
    "/batches/1/abort",
    "/batches/1/retry",
    "/firmware",
    "/firmware/1/remove",
    "/devices",
    "/devices/d1/secret",
    "/devices/d1/remove",
    "/products",
)

# Who gets in


def test_without_a_session_there_is_the_login_form_alone(furnished):
    furnished.upgrade(1)
    stranger = Browser(furnished).http
    for path in PAGES:
        answer = stranger.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login"), path
    for path in (*FORMS, "/logout"):
        assert stranger.post(path, data={"csrf": "x"}).status_code in (401, 422), path
    assert stranger.get("/batches/1/live").status_code in (303, 401)
    assert stranger.get("/api/products").status_code == 401


@pytest.mark.parametrize(
    ("name", "password"),
    [
        (NAME, "wrong"),
        (NAME, ""),
        ("bob", PASSWORD),
        ("", ""),
        (NAME + "\0", PASSWORD),
        *((text, text) for text in HOSTILE),
    ],
)
def test_a_wrong_login_is_refused(platform, name, password):
    browser = Browser(platform)
    answer = browser.log_in(name, password)
    assert answer.status_code == 403
    assert "the name or the password is wrong" in answer.text
    assert browser.http.get("/").headers["Location"] == "/login"


def test_a_login_form_cannot_be_sent_twice(platform):
    browser = Browser(platform)
    form = {"csrf": browser.form_token("/login"), "name": NAME, "password": PASSWORD}
    cookies = dict(browser.http.cookies)
    assert browser.http.post("/login", data=form).status_code == 303
    replay = httpx.post(browser.http.base_url.join("/login"), data=form, cookies=cookies)
    assert replay.status_code == 403
    assert "has been used" in replay.text


def test_a_login_form_of_somebody_else_is_refused(platform):
    browser, other = Browser(platform), Browser(platform)
    other_token = other.form_token("/login")
    browser.form_token("/login")
    form = {"csrf": other_token, "name": NAME, "password": PASSWORD}
    assert browser.http.post("/login", data=form).status_code == 403
    # Nor does one without a cookie count.
    assert httpx.post(browser.http.base_url.join("/login"), data=form).status_code == 403


def test_the_session_before_the_login_is_not_the_one_after(platform):
    browser = Browser(platform)
    browser.form_token("/login")
    before = browser.cookie()
    assert browser.log_in().status_code == 303
    assert browser.cookie() != before
    planted = Browser(platform)
    planted.http.cookies.set("ota_session", before)
    assert planted.http.get("/").headers["Location"] == "/login"


def test_a_session_ends(platform, browser, monkeypatch):
    kept = {"Cookie": f"ota_session={browser.cookie()}", "Accept": "text/html"}  # by who keeps it
    url = browser.http.base_url
    assert httpx.get(url, headers=kept).status_code == 200
    now = time.time()
    monkeypatch.setattr(access_module.time, "time", lambda: now + access_module.SESSION_S + 1)
    assert httpx.get(url, headers=kept).headers["Location"] == "/login"


def test_logging_out_ends_the_session_also_for_who_kept_the_cookie(platform, browser):
    kept = browser.cookie()
    assert browser.send("/logout").headers["Location"] == "/login"
    thief = Browser(platform)
    thief.http.cookies.set("ota_session", kept)
    assert thief.http.get("/").headers["Location"] == "/login"


def test_a_new_password_ends_all_sessions(platform, browser):
    platform.platform.access.set_password(NAME, "another password")
    assert browser.http.get("/").headers["Location"] == "/login"
    assert browser.log_in().status_code == 403
    assert browser.log_in(password="another password").status_code == 303
    platform.platform.access.remove_operator(NAME)
    assert browser.http.get("/").headers["Location"] == "/login"


def test_many_wrong_passwords_make_one_wait(platform):
    browser = Browser(platform)
    for _ in range(access_module.FAILURES_MAX):
        assert browser.log_in(password="wrong").status_code == 403
    answer = browser.log_in()
    assert answer.status_code == 429
    assert "try again in" in answer.text


def test_guesses_at_the_same_time_count(platform, monkeypatch):
    hasher = platform.platform.access._hasher
    verify = hasher.verify
    monkeypatch.setattr(hasher, "verify", lambda *both: (time.sleep(0.2), verify(*both))[1])
    browsers = [Browser(platform) for _ in range(3 * access_module.FAILURES_MAX)]
    for browser in browsers:
        browser.form_token("/login")
    guess = functools.partial(Browser.log_in, password="wrong password")
    with concurrent.futures.ThreadPoolExecutor(len(browsers)) as pool:
        answers = [answer.status_code for answer in pool.map(guess, browsers)]
    assert answers.count(403) == access_module.FAILURES_MAX
    assert answers.count(429) == 2 * access_module.FAILURES_MAX


def test_guessing_one_password_for_many_names_makes_one_wait(platform):
    for number in range(access_module.FROM_ONE_MAX):
        assert Browser(platform).log_in(f"name{number}", "wrong password").status_code == 403
    assert Browser(platform).log_in("another", "wrong password").status_code == 429
    assert Browser(platform).log_in().status_code == 429


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("", "192.0.2.1", False),
    ],
)
def test_who_counts_as_one(one, other, same):
    assert (access_module._network(one) == access_module._network(other)) is same


def test_logins_that_wait_have_a_bound(platform, monkeypatch):
    hasher = platform.platform.access._hasher
    verify = hasher.verify
    monkeypatch.setattr(hasher, "verify", lambda *both: (time.sleep(0.5), verify(*both))[1])
    monkeypatch.setattr("tools.platform.console._LOGINS_WAIT", 2)
    browsers = [Browser(platform) for _ in range(10)]
    for browser in browsers:
        browser.form_token("/login")

    def guess(number):
        return browsers[number].log_in(f"name{number}", "wrong password").status_code

    with concurrent.futures.ThreadPoolExecutor(len(browsers)) as pool:
        answers = list(pool.map(guess, range(len(browsers))))
    assert 429 in answers
    assert answers.count(403) >= 2


def test_a_right_password_forgets_wrong_ones(platform):
    for _ in range(3):
        for _ in range(access_module.FAILURES_MAX - 1):
            assert Browser(platform).log_in(password="wrong password").status_code == 403
        assert Browser(platform).log_in().status_code == 303


@pytest.mark.parametrize("proxy", [False, True])
def test_who_calls_is_told_by_a_proxy_alone(tmp_path, monkeypatch, proxy):
    with LocalPlatform(tmp_path / "platform", proxy=proxy) as platform:
        access, told = platform.platform.access, {"X-Forwarded-For": "192.0.2.7"}
        addresses = []
        count = access._count_attempt
        monkeypatch.setattr(
            access, "_count_attempt", lambda *who: (addresses.append(who[1]), count(*who))
        )
        access.add_operator(NAME, PASSWORD)
        browser = Browser(platform)
        browser.http.headers.update(told | {"X-Forwarded-Proto": "https"})
        form = {"csrf": browser.form_token("/login"), "name": NAME, "password": PASSWORD}
        (cookie,) = browser.http.cookies.jar
        assert cookie.secure is proxy
        kept = {"Cookie": f"{cookie.name}={cookie.value}"}  # which here goes without https
        assert browser.http.post("/login", data=form, headers=kept).status_code == 303
        assert addresses == [told["X-Forwarded-For"] if proxy else "127.0.0.1"]


@pytest.mark.parametrize("change", ["set_password", "remove_operator"])
def test_a_login_that_runs_while_its_password_goes_is_none(platform, monkeypatch, change):
    access = platform.platform.access
    cookie, form = access.greet()

    class Slow:
        def __init__(self, hasher):
            self.hash, self._verify = hasher.hash, hasher.verify

        def verify(self, *arguments):
            found = self._verify(*arguments)
            getattr(access, change)(*(NAME, "another password")[: 2 - (change[0] == "r")])
            return found

    monkeypatch.setattr(access, "_hasher", Slow(access._hasher))
    with pytest.raises(access_module.Denied, match="has just been changed"):
        access.log_in(cookie, form.csrf, NAME, PASSWORD, "here")
    with platform.platform._store.begin() as tx:
        assert tx.count(Session) == 0


@pytest.mark.parametrize("password", ["short", "x" * 201, ""])
def test_a_password_has_a_length(platform, password):
    with pytest.raises(PlatformError, match="10 to 200"):
        platform.platform.access.add_operator("bob", password)


def test_no_password_cookie_or_token_is_stored_as_it_is(platform, browser):
    token = platform.platform.access.add_token("ci")
    raw = b"".join(file.read_bytes() for file in platform.platform.folder.glob("platform.db*"))
    for secret in (PASSWORD, browser.cookie(), token):
        assert secret.encode() not in raw
    assert NAME.encode() in raw  # so that is where they would be


def test_what_a_browser_is_told(browser):
    headers = browser.http.get("/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    cookie = browser.log_in().headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


# Forms


@pytest.mark.parametrize("token", ["", "wrong", None])
def test_a_form_without_its_token_changes_nothing(furnished, browser, token):
    furnished.upgrade(1)
    furnished.platform.engine.until(lambda: furnished.status(1)[0].status == "Pushed", 20)
    registry = furnished.platform.registry
    before = furnished.status(1), registry.devices(secrets=True), registry.products()
    form = {"product": "pk", "identifier": "new", "key": "new", "device": "d1", "version": "2"}
    if token is not None:
        form["csrf"] = token
    for path in FORMS:
        files = {"file": ("b.bin", b"x")} if path == "/firmware" else None
        assert browser.http.post(path, data=form, files=files).status_code == 401, path
    now = furnished.status(1), registry.devices(secrets=True), registry.products()
    assert now == before
    assert len(registry.firmware()) == 1


def test_the_api_takes_a_session_with_its_token_only(furnished, browser):
    token = browser.form_token("/")
    new = {"key": "lamp"}
    assert browser.http.get("/api/products").status_code == 200
    assert browser.http.post("/api/products", json=new).status_code == 401
    wrong = browser.http.post("/api/products", json=new, headers={"X-CSRF-Token": "x"})
    assert wrong.status_code == 401
    right = browser.http.post("/api/products", json=new, headers={"X-CSRF-Token": token})
    assert right.json() == {"key": "lamp"}


def test_from_a_product_to_a_batch(platform, browser):
    assert browser.send("/products", key="pk", name="Lamp").status_code == 303
    made = browser.send("/devices", product="pk", identifier="d1", name="Kitchen")
    assert 'DEVICE_SECRET = "' in html.unescape(made.text)
    file = {"file": ("app.bin", b"\xe9 image")}
    form = {"product": "pk", "version": "1.1.0", "name": "first"}
    assert browser.send("/firmware", files=file, **form).status_code == 303
    assert "first" in browser.http.get("/firmware").text
    refused = browser.send("/batches", firmware="1", devices="d1")
    assert refused.status_code == 400
    assert "inactive: it never reported a version" in refused.text
    told(platform)
    begun = browser.send("/batches", firmware="1", devices="d1", retries="2")
    assert begun.headers["Location"] == "/batches/1"
    page = browser.http.get("/batches/1").text
    assert "In Progress" in page
    assert 'aria-label="Progress of d1"' in page
    assert browser.send("/batches/1/abort").status_code == 303
    assert "Aborted" in browser.http.get("/batches/1").text
    log = browser.http.get("/devices/d1").text
    assert "Kitchen" in log
    assert browser.http.get("/batches/1?status=Failed").status_code == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"firmware": "9"}, "no firmware 9"),
        ({"firmware": "1", "devices": "d9"}, "no device d9"),
        ({"firmware": "1", "retries": "6"}, "retries"),
        ({"firmware": "1", "retries": "x"}, "retries"),
        ({"firmware": "1", "days": "99"}, "validity"),
        ({"firmware": "1", "interval": "0"}, "interval"),
        ({"firmware": "1", "shares": "50,20"}, "shares"),
        ({"firmware": "1", "policy": "loud"}, "policy"),
    ],
)
def test_a_batch_that_cannot_be(furnished, browser, fields, words):
    answer = browser.send("/batches", **fields)
    assert answer.status_code == 400
    assert words in html.unescape(answer.text)
    assert furnished.platform.engine.batches() == []


def test_firmware_and_devices_are_removed(furnished, browser):
    registry = furnished.platform.registry
    batch = furnished.upgrade(1)
    refused = browser.send("/firmware/1/remove")
    assert (refused.status_code, "abort it first" in refused.text) == (400, True)
    before = registry.devices(secrets=True)[0]["secret"]
    made = browser.send("/devices/d1/secret")
    after = registry.devices(secrets=True)[0]["secret"]
    assert (before in made.text, after in made.text, before != after) == (False, True, True)
    refused = browser.send("/devices/d1/remove")
    assert (refused.status_code, "abort it first" in refused.text) == (400, True)
    furnished.abort(batch)
    assert browser.send("/devices/d1/remove").headers["Location"] == "/devices"
    assert (registry.devices(), furnished.status(batch)) == ([], [])
    assert browser.send("/firmware/1/remove").headers["Location"] == "/firmware"
    assert registry.firmware() == []
    assert "pk-1.1.0 (removed, 1)" in browser.http.get(f"/batches/{batch}").text
    for path in ("/firmware/1/remove", "/devices/d1/remove", "/devices/d1/secret"):
        assert browser.send(path).status_code == 404, path


# What is written into fields


@pytest.mark.parametrize("text", HOSTILE + UNSTORABLE)
def test_any_text_in_any_field(furnished, browser, text):
    sent = [
        ("/products", {"key": text, "name": "n"}),
        ("/products", {"key": "", "name": text}),
        ("/devices", {"product": text, "identifier": "d2", "name": "n"}),
        ("/devices", {"product": "pk", "identifier": text, "name": "n"}),
        ("/devices", {"product": "pk", "identifier": "d3", "name": text}),
        ("/batches", {"firmware": text}),
        *(
            ("/batches", {"firmware": "1", name: text})
            for name in ("devices", "policy", "minutes", "retries", "days", "shares", "failures")
        ),
    ]
    for path, fields in sent:
        answer = browser.send(path, **fields)
        assert answer.status_code < 500, (path, fields)
        assert no_markup(answer.text), (path, fields)
    for field in ("product", "version", "name"):
        form = {"product": "pk", "version": "2", "name": "", field: text}
        for file in ("b.bin", text):
            files = {"file": (file, b"x")}
            answer = browser.send("/firmware", files=files, **form)
            assert answer.status_code < 500, (field, file)
            assert no_markup(answer.text)
    for path in ("/batches/1", "/devices", "/", "/batches/new", "/devices/d1"):
        for name in ("after", "status", "before", "firmware"):
            answer = browser.http.get(path, params={name: text})
            assert answer.status_code < 500, (path, name)
            assert no_markup(answer.text)
    for path in PAGES:
        assert no_markup(browser.http.get(path).text)
    names = [item.name for item in (furnished.platform.folder / "firmware").iterdir()]
    assert all(name.isdecimal() for name in names)
    assert {row["identifier"] for row in furnished.devices()} >= {"d1"}


def no_markup(page):
    """No hostile text came through as markup."""
    hostile = "<script>alert", "<img src=x", "<td>gap", "onerror=alert(1)>"
    return not any(piece in page for piece in hostile)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_device_says_is_text(furnished, browser, text):
    engine = furnished.platform.engine
    furnished.upgrade(1)
    message = {
        "msgId": text,
        "data": {"firmwareVersion": text, "status": "failed", "progress": 1, "message": text},
    }
    payload = json.dumps(message | {"code": 430}).encode()
    for name in ("progress", "version", "get", "upgrade_reply"):
        engine.received(f"/sys/pk/d1/ota/firmware/{name}", payload, False, lambda: None)
    engine.until(lambda: furnished.status(1)[0].status == "Pushed", 20)
    with furnished.platform._store.begin() as tx:
        (batch,) = tx.find(Batch)
    message["data"]["firmwareVersion"] = "1.1.0"  # now one that counts
    payload = json.dumps(message | {"msgId": f"{batch.token}-1-0", "code": 430}).encode()
    engine.received("/sys/pk/d1/ota/firmware/progress", payload, False, lambda: None)
    engine.until(lambda: furnished.status(1)[0].status == "Failed", 20)
    assert furnished.status(1)[0].message == text
    assert text in html.unescape(browser.http.get("/batches/1").text)
    for path in ("/batches/1", "/devices/d1", "/"):
        assert no_markup(browser.http.get(path).text)


def multipart(**fields):
    """A form in which any field may be something else than text, by its character set."""
    part = 'Content-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    text = "".join(f"--b\r\n{part % item}" for item in fields.items())
    kind = "multipart/form-data; boundary=b; charset=unicode_escape"
    return {"content": f"{text}--b--\r\n".encode(), "headers": {"Content-Type": kind}}


def test_what_is_no_text_is_no_error_of_ours(furnished, browser):
    for path, *names in (
        ("/batches", "csrf", "firmware", "devices", "policy", "minutes", "shares"),
        ("/devices", "product", "identifier", "name"),
        ("/products", "key", "name"),
        ("/firmware", "product", "version", "name"),
        ("/batches/1/retry", "device"),
    ):
        for name in names:
            fields = {"csrf": browser._token, name: r"\ud800"}
            answer = browser.http.post(path, **multipart(**fields))
            assert answer.status_code == 422, (path, name)
    for name in ("csrf", "name", "password"):
        stranger = Browser(furnished)
        fields = {"csrf": stranger.form_token("/login"), name: r"\ud800"}
        assert stranger.http.post("/login", **multipart(**fields)).status_code == 422, name


def test_live_rows_of_a_batch_that_is_none(browser):
    assert browser.http.get("/batches/99/live").status_code == 404


# How much may come


def chunks(count):
    for _ in range(count):
        yield b"x" * 65536


@pytest.mark.parametrize("path", ["/login", "/devices", "/api/products"])
def test_a_body_that_is_too_long_is_refused(platform, browser, path):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for content in (b"x" * (1024 * 1024 + 1), chunks(40)):  # the second one tells no length
        assert browser.http.post(path, content=content, headers=headers).status_code == 413
    assert browser.http.get("/").status_code == 200


def test_a_stranger_uploads_nothing(furnished):
    stranger = Browser(furnished).http
    for path in ("/firmware", "/api/firmware"):
        for content in (b"x" * 3000, chunks(3)):
            answer = stranger.post(path, content=content)
            assert answer.status_code in (401, 413), path
        wrong = {"Authorization": "Bearer wrong"}
        assert stranger.post(path, content=b"x" * 3000, headers=wrong).status_code == 401
    assert len(furnished.platform.registry.firmware()) == 1


def test_the_body_of_a_stranger_is_not_even_waited_for(furnished):
    for path in ("/firmware", "/api/firmware"):
        with socket.create_connection(("127.0.0.1", furnished.http_port), 10) as sock:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n"
            sock.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode())
            assert sock.recv(12) == b"HTTP/1.1 401"


def test_an_upload_that_is_too_long_is_refused(furnished, browser, monkeypatch):
    monkeypatch.setattr("tools.platform.model.FILE_MAX", 2000)
    form = {"product": "pk", "version": "2"}
    answer = browser.send("/firmware", files={"file": ("b.bin", b"x" * 2001)}, **form)
    assert answer.status_code == 400
    assert "longer than 2000 bytes" in answer.text
    longer = b"x" * (1024 * 1024 + 2001)
    assert browser.send("/firmware", files={"file": ("b.bin", longer)}, **form).status_code == 413
    assert [path.name for path in (furnished.platform.folder / "firmware").iterdir()] == ["1"]


def test_login_forms_that_nobody_sends_do_not_pile_up(platform, monkeypatch):
    monkeypatch.setattr(access_module, "_FORMS_MAX", 20)
    monkeypatch.setattr(access_module, "_FORM_YOUNG_S", -1.0)
    for _ in range(50):
        platform.platform.access.greet()
    with platform.platform._store.begin() as tx:
        assert tx.count(Session) <= 21


def test_while_the_data_base_is_away_pages_say_so(platform, browser, monkeypatch):
    def fails():
        raise sa.exc.OperationalError("x", {}, Exception("away"))

    monkeypatch.setattr(platform.platform._store, "begin", fails)
    answer = browser.http.get("/")
    assert (answer.status_code, "is away" in answer.text) == (503, True)
    api = browser.http.get("/api/products", headers={"Accept": "application/json"})
    assert (api.status_code, api.json()) == (503, {"error": "the data base is away: try again"})
    assert browser.http.post("/firmware", content=b"x").status_code == 503
    assert browser.http.get("/api/health").status_code == 503
