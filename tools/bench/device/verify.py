"""The check of a signed command, without a network: as the agent does it for each command."""

import sys

from config import BOARD, KEY, MANIFEST, PRODUCT, SIGN, SIGNATURE, SIZE, VERSION
from meter import Meter

from ota.agent import Journal
from ota.trust import Trust

TIMES = 50


class Agent:
    _base = "/sys/" + PRODUCT + "/dev/ota/firmware/"


class Command:
    version = VERSION
    sign = SIGN
    size = SIZE


def main():
    trust = Trust((KEY,), BOARD)
    data = {"manifest": MANIFEST, "signature": SIGNATURE}
    agent = Agent()
    agent._log = Journal()
    meter = Meter()
    meter.begin()
    for _ in range(TIMES):
        trust.check(agent, Command, data)
    meter.end()
    # A check that takes everything would be the fastest.
    data["signature"] = "0" + SIGNATURE[1:] if SIGNATURE[0] != "0" else "1" + SIGNATURE[1:]
    try:
        trust.check(agent, Command, data)
    except Exception as e:
        sys.exit(7 if getattr(e, "code", 0) == 441 else 1)


main()
