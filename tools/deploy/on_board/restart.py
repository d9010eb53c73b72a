# Run by the board: a restart, once the answer has gone. By way of deep sleep: a reset by software
# soon after an upgrade would be taken for a crash, and three of them bring the old firmware back
# (docs/hardware.md, "Late failure"). One that is on trial the guard in boot.py resets.
import time

import machine

answer("restarts")  # noqa: F821
time.sleep_ms(300)
machine.deepsleep(1)
