"""How much of the machine went to somebody else while something of ours ran.

The load average cannot say: what ran before fills it, and so does the run itself.
"""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# Of the time of all processors in a trial: more than that disturbs it.
OTHERS_PERCENT_MAX = 3
# Its children are the kernel's own threads: some of them do this run's work.
KTHREADD = 2


class Others:
    """From when it is made. Processes that are not below this one, with what their ended children took."""

    def __init__(self):
        self.start, self.before = time.monotonic(), used()

    def percent(self):
        wall = (time.monotonic() - self.start) * os.cpu_count()
        return round(100 * max(used() - self.before, 0) / wall, 2)


def used():
    """Seconds of processor that everybody else had, the host too, since the machine started."""
    parents, times = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:
            continue
        number = int(path.parent.name)
        # User and system, its own and that of children that were waited for.
        parents[number], times[number] = int(fields[1]), sum(map(int, fields[11:15]))
    stolen = int(Path("/proc/stat").read_text(encoding="ascii").split(None, 9)[8])
    return (stolen + sum(ticks for number, ticks in times.items() if is_other(number, parents))) / TICKS


def is_other(number, parents):
    while number:
        if number in (os.getpid(), KTHREADD):
            return False
        number = parents.get(number, 0)
    return True
