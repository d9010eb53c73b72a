# Run by the board: a hard reset, once the answer has gone.
import time

import machine

answer("restarts")  # noqa: F821
time.sleep_ms(300)
machine.reset()
