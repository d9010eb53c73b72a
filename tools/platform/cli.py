"""
The command line: `python -m tools platform COMMAND`. `serve` runs the platform; all others ask the
one that runs.

Only `main` prints errors; bad input ends with status 2, an upgrade that was watched and did not
succeed with 1.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from tools.codes import sentence
from tools.platform import model
from tools.platform.client import Client
from tools.platform.model import PlatformError
from tools.platform.watch import Bars, styled_status, table
from tools.sign.manifest import Signed, SignError

FOLDER = "OTA_PLATFORM"  # the environment variable for --folder
_WATCH_S = 0.3

_PRODUCTS = {"key": "Product key", "name": "Name", "signed": "Signed alone"}
_DEVICES = {"product": "Product", "identifier": "Identifier", "name": "Name", "version": "Version"}
_FIRMWARE = {
    "id": "Id",
    "name": "Name",
    "product": "Product",
    "version": "Version",
    "file": "File",
    "size": "Bytes",
    "sign": "MD5",
    "sequence": "Sequence",
}
_BATCHES = {"id": "Batch", "firmware": "Firmware", "version": "Version", "state": "State"}
_ROWS = {
    "device": "Device",
    "status": "Status",
    "progress": "%",
    "version": "Version",
    "remark": "Remark",
    "code": "Code",
    "message": "Message",
}
_EVENTS = {"time": "Time", "batch": "Batch", "kind": "What", "text": "Said"}


def main(argv: list[str]) -> int:
    """Runs one command. argv: without the program's name. Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        return options.run(options) or 0
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# Commands. Each returns its exit status, None = 0.


def _serve(options):
    from tools.platform.server import Platform  # the other commands do without

    platform = Platform(
        options.folder,
        options.host,
        options.mqtt_port,
        options.http_port,
        options.broker,
        options.throttle,
        options.public_url,
        signing_key=options.signing_key,
    )
    asyncio.run(_serve_until_signal(platform, options))


async def _serve_until_signal(platform, options):
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await platform.start()
    try:
        broker = options.broker or f"mqtt://{options.host}:{platform.mqtt_port}"
        ready = {
            "folder": str(platform.folder),
            "mqtt": broker.rpartition("@")[2],  # without the password
            "http": f"http://{options.host}:{platform.http_port}",
        }
        text = "\n".join(f"{key:7}{value}" for key, value in ready.items())
        print(json.dumps(ready) if options.json else text, flush=True)
        await ended.wait()
    finally:
        await platform.stop()


def _product_add(options):
    names = {"key": options.key, "name": options.name}
    key = options.client.call("add_product", **names, signed=options.signed)
    _show(options, {"key": key}, key)


def _product_signed(options):
    options.client.call("require_signed", key=options.key)
    _show(options, {"key": options.key, "signed": True}, f"{options.key}: signed firmware alone")


def _product_list(options):
    _show_table(options, options.client.call("products"), _PRODUCTS)


def _device_add(options):
    names = {"product": options.product, "identifier": options.identifier}
    secret = options.client.call("add_device", **names, name=options.name)
    settings = (
        f'PRODUCT_KEY = "{options.product}"\n'
        f'IDENTIFIER = "{options.identifier}"\n'
        f'DEVICE_SECRET = "{secret}"'
    )
    _show(options, {**names, "secret": secret}, settings)


def _device_list(options):
    rows = options.client.call("devices", product=options.product, secrets=options.secrets)
    columns = {**_DEVICES, **({"secret": "Secret"} if options.secrets else {}), "seen": "Seen"}
    _show_table(options, rows, columns)


def _device_log(options):
    _show_table(options, options.client.call("events", device=options.identifier), _EVENTS)


def _firmware_upload(options):
    name = options.name or f"{options.product}-{options.version}"[: model.NAME_MAX]
    more = {"board": options.board}
    if options.manifest:
        try:
            more |= Signed.read(options.manifest)._asdict()
        except (OSError, SignError) as error:
            raise PlatformError(str(error)) from error
    number = options.client.upload(options.file, options.product, options.version, name, **more)
    _show(options, {"id": number, "name": name}, f"firmware {number}: {name}")


def _firmware_list(options):
    rows = options.client.call("firmware", product=options.product)
    _show_table(options, rows, _FIRMWARE)


def _upgrade(options):
    if bool(options.device) == options.all:
        raise PlatformError("say which devices to upgrade, or --all")
    begun = options.client.call(
        "upgrade",
        firmware=options.firmware,
        devices=options.device or None,
        policy=options.policy,
        timeout_s=options.time_out * 60,
        retries=options.retries,
        interval_s=options.interval * 60,
        valid_s=options.days * 86400,
    )
    if options.watch:
        return _watch(options, begun["batch"], begun["left_out"])
    text = f"batch {begun['batch']}" + _left_out_lines(begun["left_out"])
    _show(options, begun, text)
    return None


def _status(options):
    if options.batch is None:
        if options.watch:
            raise PlatformError("say which batch to watch")
        _show_table(options, options.client.call("batches"), _BATCHES)
        return None
    if options.watch:
        return _watch(options, options.batch, {})
    batch = options.client.call("batch", batch=options.batch)
    if options.json:
        print(json.dumps(batch))
    else:
        print(f"batch {batch['id']}: {batch['firmware']} {batch['version']}, {batch['state']}")
        _show_table(options, batch["rows"], _ROWS)
        _explain(Console(), batch["rows"])
    return None


def _abort(options):
    options.client.call("abort", batch=options.batch)
    _show(options, {"batch": options.batch, "state": model.ABORTED}, model.ABORTED)


# Pictures


def _watch(options, number, left_out):
    """A bar for each device until all are at rest. Returns 0 when all succeeded, else 1."""
    console = Console(stderr=options.json)
    if left_out:
        console.print("left out:" + _left_out_lines(left_out), highlight=False)
    with Bars(console) as bars:
        while True:
            batch = options.client.call("batch", batch=number)
            bars.show(batch["rows"])
            if batch["at_rest"]:
                break
            time.sleep(_WATCH_S)
    if options.json:
        print(json.dumps({**batch, "left_out": left_out}))
    elif not console.is_terminal:  # the bars said nothing: there was no screen to draw on
        for row in batch["rows"]:
            console.print(row["device"], styled_status(row), highlight=False)
    _explain(console, batch["rows"])
    return int(any(row["status"] != model.SUCCEEDED for row in batch["rows"]))


def _explain(console, rows):
    # What the codes of the failures mean, and what to do.
    for code in sorted({row["code"] for row in rows} - {None}):
        console.print(f"{code}: {sentence(code) or 'a code that nobody knows'}", highlight=False)


def _left_out_lines(left_out):
    return "".join(f"\n  {device}: {reason}" for device, reason in left_out.items())


def _show(options, value, text):
    print(json.dumps(value) if options.json else text)


def _show_table(options, rows, columns):
    if options.json:
        print(json.dumps(rows))
    else:
        Console().print(table(rows, columns))


# The parser


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(os.environ.get(FOLDER, ".platform")),
        help=f"where the platform keeps everything; ${FOLDER}, else .platform",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = _command(commands, "serve", "run the platform", _serve)
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for devices on the network")
    serve.add_argument("--mqtt-port", type=_port, default=1883, help="0: any free one")
    serve.add_argument("--http-port", type=_port, default=8070, help="0: any free one")
    serve.add_argument("--broker", metavar="URL", help="mqtt://host:port, instead of our own")
    serve.add_argument("--public-url", metavar="URL", help="how devices reach the HTTP port")
    serve.add_argument(
        "--signing-key", type=Path, metavar="FILE", help="sign what is uploaded with this key"
    )
    serve.add_argument("--throttle", type=_bytes, metavar="N", help="bytes a second a download")

    _product_parser(commands)
    device = _group(commands, "device", "add and list devices")
    add = _command(device, "add", "add a device, print its settings for boot.py", _device_add)
    add.add_argument("product")
    add.add_argument("identifier")
    add.add_argument("--name", default="")
    rows = _command(device, "list", "list devices", _device_list)
    rows.add_argument("--product", default="")
    rows.add_argument("--secrets", action="store_true", help="with their secrets")
    log = _command(device, "log", "what a device said, and what became of it", _device_log)
    log.add_argument("identifier")

    _firmware_parser(commands)

    upgrade = _command(commands, "upgrade", "upgrade devices", _upgrade)
    upgrade.add_argument("firmware", help="name or id")
    upgrade.add_argument("device", nargs="*", help="identifiers")
    upgrade.add_argument("--all", action="store_true", help="all devices of the product")
    upgrade.add_argument("--policy", choices=model.POLICIES, default="standard")
    upgrade.add_argument(
        "--time-out", type=int, default=60, metavar="MINUTES", help="of a device; default 60"
    )
    upgrade.add_argument("--retries", type=int, default=0, help="0 to 5")
    upgrade.add_argument(
        "--interval", type=int, default=1, metavar="MINUTES", help="before a retry; 1 to 4320"
    )
    upgrade.add_argument("--days", type=int, default=1, help="validity; 1 to 7")
    upgrade.add_argument("--watch", action="store_true", help="bars until all have ended")

    status = _command(commands, "status", "batches, or the devices of one", _status)
    status.add_argument("batch", type=int, nargs="?")
    status.add_argument("--watch", action="store_true", help="bars until all have ended")
    abort = _command(commands, "abort", "stop the devices that are not Pushed yet", _abort)
    abort.add_argument("batch", type=int)
    return parser


def _product_parser(commands):
    product = _group(commands, "product", "add and list products")
    add = _command(product, "add", "add a product, print its key", _product_add)
    add.add_argument("key", nargs="?", default="", help="made up when left out")
    add.add_argument("--name", default="")
    add.add_argument("--signed", action="store_true", help="publish signed firmware alone for it")
    signed = _command(
        product, "signed", "from now on publish signed firmware alone for it", _product_signed
    )
    signed.add_argument("key")
    _command(product, "list", "list products", _product_list)


def _firmware_parser(commands):
    firmware = _group(commands, "firmware", "upload and list firmware")
    upload = _command(firmware, "upload", "upload a firmware file", _firmware_upload)
    upload.add_argument("file", type=Path)
    upload.add_argument("--product", required=True)
    upload.add_argument("--version", required=True)
    upload.add_argument("--name", default="", help="unique; default: product-version")
    upload.add_argument(
        "--manifest", type=Path, help="what `python -m tools sign` wrote for this file"
    )
    upload.add_argument("--board", default="", help="signed for; default: the chip of the image")
    rows = _command(firmware, "list", "list firmware", _firmware_list)
    rows.add_argument("--product", default="")


def _group(commands, name, about):
    group = commands.add_parser(name, help=about, description=about)
    return group.add_subparsers(required=True, metavar="COMMAND")


def _command(commands, name, about, run):
    command = commands.add_parser(name, help=about, description=about)
    command.add_argument("--json", action="store_true", help="for scripts")

    def asking(options):
        options.client = Client(options.folder)
        return run(options)

    command.set_defaults(run=run if run is _serve else asking)
    return command


def _port(text):
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return int(text)


def _bytes(text):
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is no number of bytes")
    return int(text)
