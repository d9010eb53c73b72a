"""
The command line: `python -m tools platform COMMAND`. `serve` runs the platform; all others ask the
one that runs.

Only `main` prints errors; bad input ends with status 2, an upgrade that was watched and did not
succeed with 1.
"""

import argparse
import asyncio
import csv
import getpass
import json
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from tools.codes import sentence
from tools.platform import model, rights
from tools.platform.client import TOKEN, Client
from tools.platform.model import PlatformError
from tools.platform.watch import Bars, styled_status, table
from tools.sign.manifest import Signed, SignError

FOLDER = "OTA_PLATFORM"  # the environment variable for --folder
_WATCH_S = 0.3
_MANY = 1000  # devices at a time
_BARS = 40  # at a time: more do not fit onto a screen

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
# Of mosquitto's configuration, before its files. Devices have a listener of their own, where a
# client is who its user name says: else each could take another one's place.
_MOSQUITTO = (
    "listener 1884 127.0.0.1",
    "listener 1883",
    "use_username_as_clientid true",
    "allow_anonymous false",
)
_BATCHES = {"id": "Batch", "firmware": "Firmware", "version": "Version", "state": "State"}
_ROWS = {
    "device": "Device",
    "status": "Status",
    "progress": "%",
    "version": "Version",
    "retries": "Retries",
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
        database=options.database,
        worker=options.worker,
        events=options.events,
        proxy=options.proxy,
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
        text += f'\nboards reach it by MQTT_SERVER = "{platform.reached_at}"'
        text += f", MQTT_PORT = {platform.mqtt_port}" if not options.broker else ""
        print(json.dumps(ready) if options.json else text, flush=True)
        await ended.wait()
    finally:
        await platform.stop()


def _product_add(options):
    made = options.client.post(
        "products", key=options.key, name=options.name, signed=options.signed
    )
    _show(options, made, made["key"])


def _product_signed(options):
    options.client.post("products", options.key, "signed")
    _show(options, {"key": options.key, "signed": True}, f"{options.key}: signed firmware alone")


def _product_list(options):
    _show_table(options, options.client.get("products"), _PRODUCTS)


def _device_add(options):
    device = {
        "product": options.product,
        "identifier": options.identifier,
        "name": options.name,
    }
    _show_settings(options, options.client.post("devices", **device))


def _show_settings(options, device):
    settings = (
        f'PRODUCT_KEY = "{device["product"]}"\n'
        f'IDENTIFIER = "{device["identifier"]}"\n'
        f'DEVICE_SECRET = "{device["secret"]}"'
    )
    _show(options, device, settings)


def _device_import(options):
    try:
        lines = sys.stdin if str(options.file) == "-" else options.file.read_text().splitlines()
        names = [line.strip() for line in lines]
    except (OSError, ValueError) as error:
        raise PlatformError(f"{options.file}: {error}") from error
    names = [name for name in names if name]
    if not names:
        raise PlatformError(f"{options.file}: there is no identifier in it")
    made = []
    out = csv.writer(sys.stdout, lineterminator="\n")
    for at in range(0, len(names), _MANY):
        some = {"product": options.product, "identifiers": names[at : at + _MANY]}
        rows = options.client.post("devices", "import", **some)
        made += rows
        if not options.json:
            out.writerows((row["product"], row["identifier"], row["secret"]) for row in rows)
    if options.json:
        print(json.dumps(made))


def _device_secret(options):
    device = options.client.post("devices", options.identifier, "secret")
    _show_settings(options, device)


def _device_remove(options):
    for identifier in options.identifier:
        options.client.delete("devices", identifier)
    text = "\n".join(f"{identifier}: removed" for identifier in options.identifier)
    _show(options, {"removed": options.identifier}, text)


def _device_list(options):
    query = {"product": options.product, "secrets": options.secrets}
    rows = list(options.client.pages("devices", by="identifier", **query))
    columns = {**_DEVICES, **({"secret": "Secret"} if options.secrets else {}), "seen": "Seen"}
    _show_table(options, rows, columns)


def _device_log(options):
    _show_table(options, options.client.get("devices", options.identifier, "events"), _EVENTS)


def _firmware_upload(options):
    name = options.name or f"{options.product}-{options.version}"[: model.NAME_MAX]
    more = {"board": options.board}
    if options.manifest:
        try:
            more |= Signed.read(options.manifest)._asdict()
        except (OSError, SignError) as error:
            raise PlatformError(str(error)) from error
    made = options.client.upload(options.file, options.product, options.version, name, **more)
    _show(options, made, f"firmware {made['id']}: {made['name']}")
    if doubt := _doubt(options.file):
        print(f"warning: an ESP32 refuses this file: {doubt}", file=sys.stderr)


def _doubt(path):
    # Why an ESP32 would not take it; "" = it would. Other devices may want other files.
    from tools.image.look import look_at, read
    from tools.image.pack import is_packed, unpack

    try:
        data = read(path)
        return look_at(unpack(data) if is_packed(data) else data).problem
    except (OSError, ValueError) as error:
        return str(error)


def _firmware_remove(options):
    options.client.delete("firmware", options.firmware)
    _show(options, {"removed": options.firmware}, f"{options.firmware}: removed")


def _firmware_list(options):
    rows = options.client.get("firmware", product=options.product)
    _show_table(options, rows, _FIRMWARE)


def _upgrade(options):
    if bool(options.device) == options.all:
        raise PlatformError("say which devices to upgrade, or --all")
    begun = options.client.post(
        "batches",
        firmware=model.id_or_name(options.firmware),
        devices=options.device or None,
        policy=options.policy,
        timeout_s=options.time_out * 60,
        retries=options.retries,
        interval_s=options.interval * 60,
        valid_s=options.days * 86400,
        shares=options.shares,
        failures=options.failures,
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
        _show_table(options, options.client.get("batches"), _BATCHES)
        return None
    if options.watch:
        return _watch(options, options.batch, {})
    batch = options.client.get("batches", options.batch)
    batch["rows"] = _rows(options, options.batch)
    if options.json:
        print(json.dumps(batch))
    else:
        print(f"batch {batch['id']}: {_state(batch)}")
        _show_table(options, batch["rows"], _ROWS)
        _explain(Console(), batch["rows"])
    return None


def _abort(options):
    options.client.post("batches", options.batch, "abort")
    _show(options, {"batch": options.batch, "state": model.ABORTED}, model.ABORTED)


def _retry(options):
    options.client.post("batches", options.batch, "devices", options.identifier, "retry")
    told = {"batch": options.batch, "device": options.identifier}
    _show(options, told, f"{options.identifier}: {model.TO_BE_RETRIED}")


def _operator_add(options):
    options.client.post("operators", name=options.name, password=_password(options))
    _show(options, {"name": options.name}, options.name)


def _operator_password(options):
    options.client.put("operators", options.name, "password", password=_password(options))
    _show(options, {"name": options.name}, f"{options.name}: a new password, no session")


def _operator_remove(options):
    options.client.delete("operators", options.name)
    _show(options, {"name": options.name}, f"{options.name}: removed")


def _operator_list(options):
    rows = [{"name": name} for name in options.client.get("operators")]
    _show_table(options, rows, {"name": "Name"})


def _token_add(options):
    made = options.client.post("tokens", name=options.name)
    _show(options, made, made["token"])


def _token_remove(options):
    options.client.delete("tokens", options.name)
    _show(options, {"name": options.name}, f"{options.name}: removed")


def _token_list(options):
    _show_table(options, options.client.get("tokens"), {"name": "Name", "created": "Created"})


def _mosquitto(options):
    user, _, password = options.login.partition(":")
    if not user or not password or "&" in user:
        raise PlatformError("--login is the platform's own, like platform:PASSWORD")
    found = list(options.client.pages("devices", by="identifier", secrets=True))
    devices = [(row["product"], row["identifier"], row["secret"]) for row in found]
    try:
        options.to.mkdir(parents=True, exist_ok=True)
        rights.write(options.to, devices, (user, password))
    except OSError as error:
        raise PlatformError(f"{options.to}: {error.strerror or error}") from error
    files = {"password_file": rights.PASSWORDS, "acl_file": rights.TOPICS}
    lines = [f"{key} {(options.to / name).resolve()}" for key, name in files.items()]
    _show(options, {"devices": len(devices)}, "\n".join([*_MOSQUITTO, *lines]))


def _password(options):
    if options.password_file:
        try:
            return options.password_file.read_text().rstrip("\n")
        except (OSError, ValueError) as error:
            raise PlatformError(f"{options.password_file}: {error}") from error
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("password: ")
    if getpass.getpass("once more: ") != password:
        raise PlatformError("these are two passwords")
    return password


def _rows(options, batch):
    return list(options.client.pages("batches", batch, "devices", by="device"))


def _state(batch):
    statuses = ", ".join(f"{count} {status}" for status, count in batch["statuses"].items())
    why = f" ({batch['why']})" if batch["why"] else ""
    return f"{batch['firmware']} {batch['version']}, {batch['state']}{why}: {statuses}"


# Pictures


def _watch(options, number, left_out):
    """A bar for each device until all are at rest. Returns 0 when all succeeded, else 1."""
    console = Console(stderr=options.json)
    if left_out:
        console.print("left out:" + _left_out_lines(left_out), highlight=False)
    with Bars(console) as bars:
        while True:
            batch = options.client.get("batches", number)
            bars.show(options.client.get("batches", number, "devices", limit=_BARS))
            if batch["at_rest"]:
                break
            time.sleep(_WATCH_S)
    batch["rows"] = _rows(options, number)
    if options.json:
        print(json.dumps({**batch, "left_out": left_out}))
    elif not console.is_terminal:  # the bars said nothing: there was no screen to draw on
        for row in batch["rows"]:
            console.print(row["device"], styled_status(row), highlight=False)
    elif batch["devices"] > _BARS:
        console.print(_state(batch), highlight=False)
    _explain(console, batch["rows"])
    return int(any(row["status"] != model.SUCCEEDED for row in batch["rows"]))


def _explain(console, rows):
    # What the codes of the failures mean, and what to do.
    if any(row["remark"] == model.PUSH_FAILED and row["code"] is None for row in rows):
        console.print(f"{model.PUSH_FAILED}: {model.NO_REPLY}", highlight=False)
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
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(os.environ.get(FOLDER, ".platform")),
        help=f"where the platform keeps everything; ${FOLDER}, else .platform",
    )
    parser.add_argument(
        "--url", help=f"of a platform elsewhere, instead of --folder; ${TOKEN} has its token"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _serve_parser(commands)
    _product_parser(commands)
    device = _group(commands, "device", "add, list and remove devices")
    add = _command(device, "add", "add a device, print its settings for boot.py", _device_add)
    add.add_argument("product")
    add.add_argument("identifier")
    add.add_argument("--name", default="")
    many = _command(device, "import", "add many, print product,identifier,secret", _device_import)
    many.add_argument("product")
    many.add_argument("file", type=Path, help="an identifier a line; - = standard input")
    rows = _command(device, "list", "list devices", _device_list)
    rows.add_argument("--product", default="")
    rows.add_argument("--secrets", action="store_true", help="with their secrets")
    log = _command(device, "log", "what a device said, and what became of it", _device_log)
    log.add_argument("identifier")
    renew = _command(
        device, "secret", "a new secret; the one before holds no more", _device_secret
    )
    renew.add_argument("identifier")
    remove = _command(device, "remove", "its log goes, too; it comes in no more", _device_remove)
    remove.add_argument("identifier", nargs="+")

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
    upgrade.add_argument(
        "--shares",
        default="100",
        metavar="PERCENT",
        help="a gradual roll-out: added up, like 5,25,100; the next when all before are at rest",
    )
    upgrade.add_argument(
        "--failures", type=int, default=100, metavar="PERCENT", help="above, the roll-out stops"
    )
    upgrade.add_argument("--watch", action="store_true", help="bars until all have ended")

    status = _command(commands, "status", "batches, or the devices of one", _status)
    status.add_argument("batch", type=int, nargs="?")
    status.add_argument("--watch", action="store_true", help="bars until all have ended")
    abort = _command(commands, "abort", "stop the devices that are not Pushed yet", _abort)
    abort.add_argument("batch", type=int)
    retry = _command(commands, "retry", "one attempt more for a device that Failed", _retry)
    retry.add_argument("batch", type=int)
    retry.add_argument("identifier")
    _access_parsers(commands)
    mosquitto = _command(
        commands, "mosquitto", "write passwords and topic rights for mosquitto", _mosquitto
    )
    mosquitto.add_argument("to", type=Path, metavar="FOLDER")
    mosquitto.add_argument("--login", required=True, metavar="USER:PASSWORD", help="ours there")
    return parser


def _access_parsers(commands):
    operator = _group(commands, "operator", "who may use the console")
    for name, about, run in (
        ("add", "add an operator", _operator_add),
        ("password", "give an operator a new password", _operator_password),
    ):
        command = _command(operator, name, about, run)
        command.add_argument("name")
        command.add_argument("--password-file", type=Path, help="else asked for, or of stdin")
    remove = _command(operator, "remove", "remove an operator", _operator_remove)
    remove.add_argument("name")
    _command(operator, "list", "list operators", _operator_list)
    token = _group(commands, "token", "which programs may use the API")
    for name, about, run in (
        ("add", "make a token, print it", _token_add),
        ("remove", "a token that holds no more", _token_remove),
    ):
        _command(token, name, about, run).add_argument("name")
    _command(token, "list", "list tokens", _token_list)


def _serve_parser(commands):
    serve = _command(commands, "serve", "run the platform", _serve)
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for devices on the network")
    serve.add_argument("--mqtt-port", type=_port, default=1883, help="0: any free one")
    serve.add_argument("--http-port", type=_port, default=8070, help="0: any free one")
    serve.add_argument("--broker", metavar="URL", help="mqtt://host:port, instead of our own")
    serve.add_argument("--public-url", metavar="URL", help="how devices reach the files")
    serve.add_argument(
        "--proxy",
        action="store_true",
        help="one on this machine stands before it, and tells who calls (X-Forwarded-For, -Proto)",
    )
    serve.add_argument(
        "--signing-key", type=Path, metavar="FILE", help="sign what is uploaded with this key"
    )
    serve.add_argument("--throttle", type=_bytes, metavar="N", help="bytes a second a download")
    serve.add_argument(
        "--database", metavar="URL", help="postgresql+psycopg://user@host/name, instead of SQLite"
    )
    serve.add_argument(
        "--worker", default="1", metavar="NAME", help="of this one, when several share a data base"
    )
    serve.add_argument(
        "--events", type=_lines, default=1_000_000, metavar="N", help="lines of logs that are kept"
    )


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
    firmware = _group(commands, "firmware", "upload, list and remove firmware")
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
    remove = _command(
        firmware, "remove", "its file goes, the history of its batches stays", _firmware_remove
    )
    remove.add_argument("firmware", help="name or id")


def _group(commands, name, about):
    group = commands.add_parser(name, help=about, description=about)
    return group.add_subparsers(required=True, metavar="COMMAND")


def _command(commands, name, about, run):
    command = commands.add_parser(name, help=about, description=about)
    command.add_argument("--json", action="store_true", help="for scripts")

    def asking(options):
        options.client = Client(options.folder, options.url)
        return run(options)

    command.set_defaults(run=run if run is _serve else asking)
    return command


def _port(text):
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return int(text)


def _lines(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of lines")
    return int(text)


def _bytes(text):
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is no number of bytes")
    return int(text)
