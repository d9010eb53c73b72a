"""Packages as MicroPython people expect them: mip, freezing, types for editors."""

import ast
import contextlib
import functools
import http.server
import json
import threading

from tests.boards import mpremote
from tools import release
from tools.toolchain import ROOT

pytest_plugins = "tests.board_fixtures"
IMPORTED = (0, "450\n")


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_mip_from_a_checkout(board):
    assert json.loads((ROOT / "package.json").read_text()) == release.sources()
    assert mpremote(board, "mip", "install", "package.json")[0] == 0
    for path in (ROOT / "ota").glob("*.py"):
        assert (board.fs / "lib/ota" / path.name).read_bytes() == path.read_bytes()
    assert mpremote(board, "exec", "import ota; print(ota.OTAError(450).code)") == IMPORTED


def test_mip_of_a_release(board, tmp_path):
    folder = tmp_path / "release"
    assert release.write(folder) == folder / "package.json"
    with served(folder) as url:
        assert mpremote(board, "mip", "install", f"{url}/package.json")[0] == 0
    assert sorted(path.suffix for path in (board.fs / "lib/ota").iterdir()) == [".mpy"] * 10
    assert mpremote(board, "exec", "import ota; print(ota.OTAError(450).code)") == IMPORTED


def arguments(function):
    """Names of its positional arguments, but self; names of those by keyword."""
    found = [item.arg for item in function.args.posonlyargs + function.args.args]
    return found[1:], [item.arg for item in function.args.kwonlyargs]


def classes(path):
    tree = ast.parse(path.read_text())
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return found, {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def methods(cls):
    return {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}


def test_types_are_those_of_the_package():
    stubs, _ = classes(ROOT / "typings/ota/__init__.pyi")
    agent, _ = classes(ROOT / "ota/agent.py")
    link, _ = classes(ROOT / "ota/stream.py")
    _, calls = classes(ROOT / "ota/calls.py")
    real = dict(methods(agent["OTA"]))
    real |= {name: node for name, node in calls.items() if not name.startswith("_")}
    typed = methods(stubs["OTA"])
    for name, node in typed.items():
        if name in ("__enter__", "__exit__", "cancel"):
            continue
        assert arguments(real[name])[0] == arguments(node)[0], name
    settings = {target.id for node in agent["OTA"].body if isinstance(node, ast.Assign)
                for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
    assert set(arguments(typed["__init__"])[1]) == settings - {"hash"}
    public = {name for name in real if not name.startswith("_")} | {"__init__"}
    assert public <= set(typed)
    for name in ("subscribe", "publish", "check_msg", "close"):
        want = arguments(methods(link["Link"])[name])
        assert arguments(methods(stubs["Link"])[name]) == want, name
    trust, _ = classes(ROOT / "ota/trust.py")
    typed, _ = classes(ROOT / "typings/ota/trust.pyi")
    made = [methods(cls["Trust"])["__init__"] for cls in (trust, typed)]
    assert arguments(made[0]) == arguments(made[1])


def test_version_stands_in_one_place():
    assert json.loads((ROOT / "package.json").read_text())["version"] == release.version()
