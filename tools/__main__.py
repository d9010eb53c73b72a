"""
The one command of the host side: `python -m tools NAME ...` hands over to tools/NAME/cli.py.

The help comes from the same table. A sub-command is loaded only when it is called.
"""

import sys
from importlib import import_module

COMMANDS = {
    "bench": "what an upgrade costs on the device: CPU, heap, traffic",
    "console": "the platform's console, with two simulated devices to play with",
    "demo": "three simulated devices are upgraded, and one rolls back",
    "deploy": "put the device package onto a board, over its serial port",
    "device": "the simulated ESP32: run one, replay traces of a real one",
    "faults": "the fault campaign: an upgrade in which something goes wrong, thousands of times",
    "image": "build firmware images, pack them, and look into them",
    "platform": "the platform: upload firmware, upgrade devices, its web console",
    "sign": "make keys, sign firmware, verify it",
}


def main(argv: list[str]) -> int:
    """Runs a sub-command. argv: its name and arguments. Returns the exit status, 2 = no such."""
    name, *rest = argv or [""]
    if name in COMMANDS:
        sys.argv[0] = f"python -m tools {name}"  # what argparse calls the program
        return import_module(f"tools.{name}.cli").main(rest)
    asked = name in ("-h", "--help", "help")
    out = sys.stdout if asked else sys.stderr
    if name and not asked:
        print(f"no such command: {name}\n", file=out)
    print("usage: python -m tools NAME [-h] ...\n", file=out)
    for command, about in COMMANDS.items():
        print(f"  {command:10} {about}", file=out)
    return 0 if asked else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "tools":
            raise
        sys.exit(f"{error}: `make venv` makes .venv, then it is .venv/bin/python -m tools")
