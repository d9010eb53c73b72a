"""CPU and wall time of a stretch of code, printed as one line of JSON."""

import time

import esp32


def cpu():
    """
    Nanoseconds on the CPU. time.clock() has 1 ms steps; the kernel counts finer, and brings its
    count up to date when the process sleeps.
    """
    time.sleep_us(1)
    with open("/proc/self/schedstat") as file:
        return int(file.read().split()[0])


class Meter:
    def begin(self):
        partition = esp32.Partition
        partition.erases = partition.writes = partition.reads = 0
        self._cpu = cpu()
        self._wall = time.ticks_us()

    def end(self):
        wall = time.ticks_diff(time.ticks_us(), self._wall)
        busy = (cpu() - self._cpu) // 1000
        partition = esp32.Partition
        print(
            '{"cpu": %d, "wall": %d, "erases": %d, "writes": %d, "reads": %d}'
            % (busy, wall, partition.erases, partition.writes, partition.reads)
        )
