"""What a run was made on: the machine, and how much of it its host took meanwhile."""

import os
import platform
import re
from pathlib import Path


class Machine:
    """What it is, and how busy it was with other things."""

    def __init__(self):
        self.load_before = os.getloadavg()
        self.before = self.times()

    @staticmethod
    def times():
        return [int(n) for n in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]

    def stolen(self):
        """Percent of the processors' time that the host took since this was made."""
        used = [after - before for before, after in zip(self.before, self.times())]
        return round(100 * used[7] / max(sum(used[:8]), 1), 2)

    @staticmethod
    def description():
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.M)
        memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
        system = re.search(r'^PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text(encoding="utf-8"), re.M)
        virtual = ", a virtual machine" if re.search(r"^flags.*\bhypervisor\b", cpuinfo, re.M) else ""
        return (
            f"{os.cpu_count()} × {model.group(1) if model else platform.machine()}{virtual},"
            f" {int(memory.group(1)) / 1048576:.0f} GiB, kernel {'.'.join(platform.release().split('.')[:2])},"
            f" {system.group(1) if system else platform.system()}."
        )

    def end(self):
        self.load_after = os.getloadavg()
        self.stolen_percent = self.stolen()

    def lines(self):
        """For a report, after `end`."""
        yield self.description()
        loads = ", ".join(f"{load:.1f}" for load in self.load_before)
        yield (
            f"Load before the run {loads}; after it {self.load_after[0]:.1f}; {self.stolen_percent:.1f} % of the processors' time"
            " was taken by the host."
        )
        if self.load_before[0] > 0.5:
            yield "**The machine was not quiet: other work ran at the same time, and no figure here is to be quoted.**"
