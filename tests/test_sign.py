"""
tools/sign: keys, manifests, signatures, and what the platform makes of them. What a device makes
of them: test_trust_attacks.py.

Source of the expected values: docs/trust.md; openssl, another implementation, verifies.
"""

import json
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import time

import pytest

from ota.protocol import _PREFIX
from tools.image import wrong
from tools.image.firmware import firmware
from tools.image.pack import pack, pack_file
from tools.platform.local import LocalPlatform
from tools.platform.model import Device, PlatformError
from tools.sign import cli, keys
from tools.sign.manifest import Manifest, Signed, SignError, digests


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sign")
    keys.generate(folder / "key.pem")
    firmware(folder / "app.bin", "1.1.0", size=128 * 1024)
    firmware(folder / "s3.bin", "1.1.0", size=128 * 1024, chip="esp32s3")
    return folder


@pytest.fixture
def run(material, capsys):
    """python -m tools sign ...: its exit status, and what it printed."""

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        out = capsys.readouterr()
        return status, out.out + out.err

    return run


def sign(run, material, *more, file="app.bin", target="x.manifest"):
    target = material / target
    return run(
        "sign",
        material / file,
        "--key",
        material / "key.pem",
        "--product",
        "lamp",
        "--version",
        "1.1.0",
        "--sequence",
        7,
        "-o",
        target,
        *more,
    )


def good() -> dict:
    return {
        "product": "lamp",
        "board": "esp32",
        "version": "1.1.0",
        "md5": "ab" * 16,
        "size": 4096,
        "sha256": "cd" * 32,
        "sequence": 7,
    }


# Keys


@pytest.mark.parametrize("bits", keys.BITS)
def test_keygen_makes_a_key_for_its_owner_alone(run, tmp_path, bits):
    file = tmp_path / "key.pem"
    status, said = run("keygen", file, "--bits", bits)
    assert status == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    modulus = keys.load_private(file).modulus
    assert f'PUBLIC_KEYS = ("{modulus}",)' in said
    assert len(modulus) == bits // 4
    assert run("public", file) == (0, modulus + "\n")


def test_keygen_overwrites_nothing(run, tmp_path):
    file = tmp_path / "key.pem"
    file.write_text("something dear")
    status, said = run("keygen", file)
    assert (status, file.read_text()) == (1, "something dear")
    assert "is there already" in said


@pytest.mark.skipif(os.name != "posix", reason="no such permissions")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_key_that_others_may_read_is_not_used(run, material, tmp_path, mode):
    file = tmp_path / "key.pem"
    shutil.copy(material / "key.pem", file)
    file.chmod(mode)
    status, said = run(
        "sign",
        material / "app.bin",
        "--key",
        file,
        "--product",
        "lamp",
        "--version",
        "1.1.0",
        "--sequence",
        1,
        "-o",
        tmp_path / "m",
    )
    assert status == 1
    assert "chmod 600" in said
    assert not (tmp_path / "m").exists()


def test_what_is_no_key(run, material, tmp_path):
    for name, content in (("text", "no key"), ("cut", (material / "key.pem").read_text()[:300])):
        file = tmp_path / name
        file.write_text(content)
        file.chmod(0o600)
        with pytest.raises(SignError, match="no private key"):
            keys.load_private(file)
    subprocess.run(
        ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-out", tmp_path / "ec.pem"],
        check=True,
        capture_output=True,
    )
    (tmp_path / "ec.pem").chmod(0o600)
    with pytest.raises(SignError, match="RSA with 2048 or 3072"):
        keys.load_private(tmp_path / "ec.pem")
    with pytest.raises(SignError, match="passphrase"):
        subprocess.run(
            [
                "openssl",
                "rsa",
                "-in",
                material / "key.pem",
                "-aes256",
                "-passout",
                "pass:x",
                "-out",
                tmp_path / "locked.pem",
            ],
            check=True,
            capture_output=True,
        )
        (tmp_path / "locked.pem").chmod(0o600)
        keys.load_private(tmp_path / "locked.pem")


# Signing


def test_openssl_verifies_what_we_sign(run, material, tmp_path):
    assert sign(run, material)[0] == 0
    signed = Signed.read(material / "x.manifest")
    (tmp_path / "text").write_text(signed.manifest)
    (tmp_path / "signature").write_bytes(bytes.fromhex(signed.signature))
    public = subprocess.run(
        ["openssl", "rsa", "-in", material / "key.pem", "-pubout"], check=True, capture_output=True
    ).stdout
    (tmp_path / "public.pem").write_bytes(public)
    subprocess.run(
        [
            "openssl",
            "dgst",
            "-sha256",
            "-verify",
            tmp_path / "public.pem",
            "-signature",
            tmp_path / "signature",
            tmp_path / "text",
        ],
        check=True,
    )
    assert (
        run(
            "verify",
            material / "app.bin",
            "--key",
            tmp_path / "public.pem",
            "--manifest",
            material / "x.manifest",
        )[0]
        == 0
    )


def test_manifest_says_what_the_file_is(run, material):
    assert sign(run, material)[0] == 0
    size, md5, sha256 = digests(material / "app.bin")
    text = Signed.read(material / "x.manifest").manifest
    assert text == f"ota1 lamp esp32 1.1.0 {md5} {size} {sha256} 0000000007 0000000000"
    assert str(Manifest.parse(text)) == text


def test_board_is_the_chip_of_the_image(run, material):
    pack_file(material / "s3.bin", material / "s3.gz", 12, True)
    for file in ("s3.bin", "s3.gz"):
        assert sign(run, material, file=file)[0] == 0
        assert Manifest.parse(Signed.read(material / "x.manifest").manifest).board == "esp32s3"
    assert sign(run, material, "--board", "lamp-r2", file="s3.bin")[0] == 0
    assert Manifest.parse(Signed.read(material / "x.manifest").manifest).board == "lamp-r2"


def test_what_is_no_application_image_is_not_signed_without_a_board(run, material, tmp_path):
    wrong.text(tmp_path / "notes.bin")
    status, said = sign(run, material, file=tmp_path / "notes.bin", target=tmp_path / "m")
    assert status == 1
    assert "not signed" in said
    assert not (tmp_path / "m").exists()


def test_verify_refuses(run, material, tmp_path):
    assert sign(run, material)[0] == 0
    key = material / "key.pem"

    def verify(file, manifest, key=key):
        return run("verify", file, "--key", key, "--manifest", manifest)

    changed = tmp_path / "changed.bin"
    changed.write_bytes((material / "app.bin").read_bytes()[:-1] + b"x")
    status, said = verify(changed, material / "x.manifest")
    assert (status, "another file" in said) == (1, True)

    keys.generate(tmp_path / "other.pem")
    status, said = verify(material / "app.bin", material / "x.manifest", tmp_path / "other.pem")
    assert (status, "not that of this key" in said) == (1, True)

    data = json.loads((material / "x.manifest").read_text())
    for name, value in (
        ("manifest", data["manifest"].replace("lamp", "pump")),
        ("signature", data["signature"][:-2] + "00"),
        ("signature", "xyz"),
        ("signature", 5),
    ):
        (tmp_path / "m").write_text(json.dumps({**data, name: value}))
        assert verify(material / "app.bin", tmp_path / "m")[0] == 1
    (tmp_path / "m").write_text("no JSON")
    assert verify(material / "app.bin", tmp_path / "m")[0] == 1
    assert verify(material / "app.bin", tmp_path / "none")[0] == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("product", ""), ("product", "a b"), ("product", "a" * 65), ("product", "a/b"),
        ("board", "a b"), ("board", ""), ("version", "1 0"), ("version", "v" * 101),
        ("md5", "AB" * 16), ("md5", "ab" * 15), ("sha256", "cd" * 33), ("sha256", "x" * 64),
        ("size", 0), ("size", -1), ("sequence", -1), ("sequence", 10**10),
        ("back_from", 7), ("back_from", 3), ("back_from", 10**10),
    ],
)  # fmt: skip
def test_manifest_that_is_not_possible(field, value):
    with pytest.raises(SignError):
        Manifest(**{**good(), field: value})


def test_downgrade_says_from_where():
    assert str(Manifest(**good(), back_from=9)).endswith(" 0000000007 0000000009")


@pytest.mark.parametrize(
    "text",
    ["", "ota1", "ota2 lamp esp32 1 a 1 b 1 0", "ota1 lamp esp32 1.1.0 " + "ab" * 16 + " x y 1 0"],
)
def test_text_that_is_no_manifest(text):
    with pytest.raises(SignError):
        Manifest.parse(text)


def test_manifest_written_in_another_way_is_none():
    text = str(Manifest(**good()))
    for other in (text.replace(" 4096 ", " 04096 "), text.replace("0000000007", "7"), text + " "):
        with pytest.raises(SignError):
            Manifest.parse(other)


# The platform


@pytest.fixture
def platform(material, tmp_path):
    with LocalPlatform(tmp_path / "platform", signing_key=material / "key.pem") as platform:
        platform.add_product("lamp", signed=True)
        yield platform


def about(platform, number):
    return next(f for f in platform.platform.registry.firmware() if f["id"] == number)


def test_platform_signs_at_upload_with_a_sequence_of_its_own(platform, material):
    key = keys.load_public(str(material / "key.pem"))
    platform.add_product("pump")
    for product, version, sequence in (
        ("lamp", "1.1.0", 1), ("lamp", "1.2.0", 2), ("pump", "1.0.0", 1), ("lamp", "1.3.0", 3),
    ):  # fmt: skip
        found = about(platform, platform.upload(product, material / "app.bin", version))
        keys.verify(key, Signed(found["manifest"], found["signature"]))
        manifest = Manifest.parse(found["manifest"])
        manifest.check(digests(material / "app.bin"))
        assert (manifest.product, manifest.version) == (product, version)
        assert (manifest.sequence, found["sequence"], manifest.board) == (sequence,) * 2 + (
            "esp32",
        )


def test_what_is_no_image_is_not_taken_where_it_would_be_signed(platform, material, tmp_path):
    wrong.text(tmp_path / "notes.bin")
    with pytest.raises(PlatformError, match="not signed"):
        platform.upload("lamp", tmp_path / "notes.bin", "1.1.0")
    assert platform.platform.registry.firmware() == []
    packed = pack((material / "app.bin").read_bytes())
    (tmp_path / "cut.bin.gz").write_bytes(packed[:-100])
    (tmp_path / "bad.bin.gz").write_bytes(packed[:500] + b"damage" + packed[506:])
    for name, words in (("cut.bin.gz", "cut: .*not signed"), ("bad.bin.gz", "damaged: .*not sig")):
        with pytest.raises(PlatformError, match=words):
            platform.upload("lamp", tmp_path / name, "1.1.0")
    assert platform.platform.registry.firmware() == []
    # With a board it is the owner's word.
    assert platform.upload("lamp", tmp_path / "notes.bin", "1.1.0", board="other") == 1


def test_upload_with_a_manifest_made_elsewhere(material, tmp_path):
    size, md5, sha256 = digests(material / "app.bin")
    fields = {**good(), "md5": md5, "size": size, "sha256": sha256}
    key = keys.load_private(material / "key.pem")
    with LocalPlatform(tmp_path / "platform") as platform:
        platform.add_product("lamp", signed=True)
        for other, words in (
            ({"product": "pump"}, "product pump"),
            ({"version": "1.0.9"}, "version 1.0.9"),
            ({"sha256": "ab" * 32}, "another file"),
            ({"md5": "ab" * 16}, "another file"),
        ):
            with pytest.raises(PlatformError, match=words):
                platform.upload(
                    "lamp",
                    material / "app.bin",
                    "1.1.0",
                    signed=key.sign(Manifest(**{**fields, **other})),
                )
        signed = key.sign(Manifest(**fields))
        number = platform.upload("lamp", material / "app.bin", "1.1.0", signed=signed)
        found = about(platform, number)
        assert (found["manifest"], found["signature"], found["sequence"]) == (*signed, 7)


def test_a_signature_that_is_none_is_not_taken(material, tmp_path, platform):
    keys.generate(tmp_path / "other.pem")
    size, md5, sha256 = digests(material / "app.bin")
    manifest = Manifest(**{**good(), "md5": md5, "size": size, "sha256": sha256})
    other = keys.load_private(tmp_path / "other.pem").sign(manifest)
    for signature, words in (
        ("", "signature is none"),
        ("junk", "signature is none"),
        (other.signature.upper(), "signature is none"),
        (other.signature[2:], "signature is none"),
        (other.signature, "not that of this key"),  # the platform knows which one it should be
    ):
        signed = Signed(str(manifest), signature)
        with pytest.raises(PlatformError, match=words):
            platform.upload("lamp", material / "app.bin", "1.1.0", signed=signed)
    own = keys.load_private(material / "key.pem").sign(manifest)
    platform.upload("lamp", material / "app.bin", "1.1.0", signed=own)


def test_unsigned_firmware_is_not_published_for_a_product_marked_signed(material, tmp_path):
    with LocalPlatform(tmp_path / "platform") as platform:
        registry = platform.platform.registry
        platform.add_product("lamp")
        platform.add_device("lamp", "kitchen")
        with platform.platform._store.begin() as tx:
            tx.update([Device("lamp", "kitchen", "secret", "kitchen", "1.0.0", 1.0)])
        number = platform.upload("lamp", material / "app.bin", "1.1.0")
        batch = platform.upgrade(number)
        with pytest.raises(PlatformError, match="abort it first"):
            registry.require_signed("lamp")
        platform.abort(batch)
        platform.wait(batch)
        registry.require_signed("lamp")
        with pytest.raises(PlatformError, match="not signed"):
            platform.upgrade(number)
        with pytest.raises(PlatformError, match="no product"):
            registry.require_signed("nosuch")
    # It is remembered.
    with LocalPlatform(tmp_path / "platform") as platform, pytest.raises(PlatformError):
        platform.upgrade(number)


def test_platform_does_not_start_with_a_key_that_others_may_read(material, tmp_path):
    shutil.copy(material / "key.pem", tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(PlatformError, match="chmod 600"):
        LocalPlatform(tmp_path / "platform", signing_key=tmp_path / "key.pem")


def before_migrations(base):
    """Makes of a new SQLite file one of the releases before there were migrations."""
    for index in ("tasks_of_device", "tasks_due"):
        base.execute(f"DROP INDEX {index}")
    for table in ("operators", "sessions", "tokens", "alembic_version"):
        base.execute(f"DROP TABLE {table}")
    for column in ("why", "shares", "failures", "wave"):
        base.execute(f"ALTER TABLE batches DROP COLUMN {column}")
    base.execute("ALTER TABLE tasks DROP COLUMN wave")


def test_file_of_an_earlier_release_is_taken_on(material, tmp_path):
    folder = tmp_path / "platform"
    with LocalPlatform(folder) as platform:
        platform.add_product("lamp", "Lamp")
        number = platform.upload("lamp", material / "app.bin", "1.1.0")
    with sqlite3.connect(folder / "platform.db") as base:
        for table, column in (
            ("products", "signed"), ("firmware", "manifest"), ("firmware", "signature"),
            ("firmware", "sequence"), ("firmware", "removed"),
        ):  # fmt: skip
            base.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        before_migrations(base)
    base.close()
    with LocalPlatform(folder, signing_key=material / "key.pem") as platform:
        assert about(platform, number)["signature"] == ""
        assert (
            about(platform, platform.upload("lamp", material / "app.bin", "1.2.0"))["sequence"]
            == 1
        )
        assert platform.platform.registry.products()[0]["signed"] is False


def test_command_line_of_the_platform(material, tmp_path, capsys):
    from tools.platform import cli as platform_cli

    def call(*arguments):
        status = platform_cli.main(["--folder", str(tmp_path / "platform"), *map(str, arguments)])
        out = capsys.readouterr()
        return status, out.out + out.err

    assert (
        cli.main(
            [
                "sign",
                str(material / "app.bin"),
                "--key",
                str(material / "key.pem"),
                "--product",
                "lamp",
                "--version",
                "1.1.0",
                "--sequence",
                "41",
                "-o",
                str(tmp_path / "m"),
            ]
        )
        == 0
    )
    capsys.readouterr()
    with LocalPlatform(tmp_path / "platform"):
        assert call("product", "add", "lamp", "--signed") == (0, "lamp\n")
        assert call("product", "signed", "lamp")[0] == 0
        upload = "firmware", "upload", material / "app.bin", "--product", "lamp"
        assert call(*upload, "--version", "1.1.0", "--manifest", tmp_path / "m")[0] == 0
        listed = json.loads(call("firmware", "list", "--json")[1])
        assert listed[0]["sequence"] == 41
        status, said = call(*upload, "--version", "1.1.1", "--manifest", tmp_path / "m")
        assert (status, "version 1.1.0" in said) == (2, True)
        status, said = call(*upload, "--version", "1.1.1", "--manifest", material / "app.bin")
        assert (status, "not what" in said) == (2, True)
        status, said = call(
            "upgrade", call(*upload, "--version", "1.1.2")[1].split()[1][:-1], "--all"
        )
        assert (status, "not signed" in said) == (2, True)


# Secrets


def test_private_key_stands_nowhere_but_in_its_file(material, tmp_path, capsys, caplog):
    """What all this prints, logs, stores, and sends to devices and over the API."""
    caplog.set_level(logging.DEBUG)
    pem = (material / "key.pem").read_text()
    key = keys.load_private(material / "key.pem")
    numbers = key._key.private_numbers()
    secrets = [line for line in pem.splitlines() if not line.startswith("-")]
    secrets += [f"{n:x}" for n in (numbers.d, numbers.p, numbers.q)]
    secrets += [str(n) for n in (numbers.d, numbers.p, numbers.q)]
    assert not any(secret in repr(key) + str(key) for secret in secrets)

    cli.main(
        [
            "sign",
            str(material / "app.bin"),
            "--key",
            str(material / "key.pem"),
            "--product",
            "lamp",
            "--version",
            "1.1.0",
            "--sequence",
            "1",
            "-o",
            str(tmp_path / "m"),
        ]
    )
    cli.main(["public", str(material / "key.pem")])
    cli.main(
        [
            "verify",
            str(material / "app.bin"),
            "--key",
            str(material / "key.pem"),
            "--manifest",
            str(tmp_path / "m"),
        ]
    )
    with LocalPlatform(tmp_path / "platform", signing_key=material / "key.pem") as platform:
        platform.add_product("lamp", signed=True)
        platform.add_device("lamp", "kitchen")
        platform.upload("lamp", material / "app.bin", "1.1.0")
        topic = _PREFIX % ("lamp", "kitchen") + "get"
        platform.publish(
            topic,
            json.dumps({"msgId": "1", "version": "1.0", "data": {"firmwareVersion": "1.1.0"}}),
        )
        platform.wait_seen([], 5)
        time.sleep(0.2)
        texts = [json.dumps(platform.platform.registry.firmware())]
        texts.append(json.dumps(platform.events("kitchen")))
    out = capsys.readouterr()
    texts += [out.out, out.err, caplog.text]
    for file in (tmp_path / "platform").rglob("*"):
        if file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    assert len(texts) > 6
    for secret in secrets:
        assert not any(secret in text for text in texts)
