"""
A fleet: 50 simulated devices are upgraded at once through mosquitto, which knows each of them, by
two workers over one PostgreSQL.
"""

import pytest

from tests.bench import PRODUCT
from tools import servers
from tools.platform import rights
from tools.platform.local import LocalPlatform

pytest_plugins = "tests.bench_fixtures", "tests.databases"

DEVICES = 50
WAIT_S = 240
LOGIN = "platform", "its-own-secret"


@pytest.fixture
def broker(tmp_path):
    """(port, a function that lets these devices in) of a mosquitto."""
    folder = tmp_path / "broker"
    folder.mkdir()

    def let_in(devices):
        rights.write(folder, devices, LOGIN)

    let_in([])
    lines = ["allow_anonymous false", f"password_file {folder / rights.PASSWORDS}"]
    lines.append(f"acl_file {folder / rights.TOPICS}")
    port = servers.free_port()
    with servers.mosquitto(folder, *lines, port=port) as port:
        yield port, let_in, folder


def test_a_fleet_at_once(make_bench, images, broker, postgres, tmp_path):
    port, let_in, folder = broker
    options = {"broker": f"mqtt://{':'.join(LOGIN)}@127.0.0.1:{port}", "database": postgres()}
    bench = make_bench(**options)
    names = [f"d{number:02}" for number in range(DEVICES)]
    devices = [bench.device(images("1.0.0"), name, on=False) for name in names]
    rows = bench.platform.platform.registry.devices(secrets=True)
    let_in([(row["product"], row["identifier"], row["secret"]) for row in rows])
    servers.reload(folder)
    public_url = bench.platform.platform.public_url
    second = tmp_path / "second"
    with LocalPlatform(second, worker="2", public_url=public_url, **options) as other:
        engine = other.platform.engine
        engine.until(lambda: engine.connected, WAIT_S)
        for device in devices:
            device.start()
        bench.platform.wait_seen(names, WAIT_S)
        batch = bench.platform.upgrade(bench.platform.upload(PRODUCT, images("1.1.0"), "1.1.0"))
        rows = bench.platform.wait(batch, WAIT_S)
        assert [row.device for row in rows] == names
        assert {(row.status, row.version, row.progress) for row in rows} == {
            ("Succeeded", "1.1.0", 100)
        }
        assert other.status(batch) == rows
        assert engine.handled > 0
        assert bench.platform.platform.engine.handled > 0  # so both had a part of it
    assert {device.running for device in devices} == {"ota_1"}
