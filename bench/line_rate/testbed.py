"""Two ports with a wire between them: a veth pair in a namespace of its own, or real ones that were named.

Which core does what on a veth pair: the generator's core runs the sender and, with `napi` = sender, the driver's side of the
receiving port as well (softirq). With `napi` = receiver the driver's side is a kernel thread on the receiver's core, as an
interrupt there would be, and above the receiver in priority as an interrupt is: one core does all that receiving takes. Like an
interrupt of a NIC it is moderated: a thread that is woken for every frame takes the whole core at any rate, and leaves nothing to the
receiver.
"""

import os
import subprocess
import time
from pathlib import Path

# A kernel thread has to be named within this.
THREAD_PATIENCE_S = 5
# What an interrupt would have: any real-time priority is above every ordinary process.
NAPI_PRIORITY = 1
# What Intel's drivers begin with (rx-usecs), and for how many polls without a frame it goes on. Of 20 µs the timer alone took a large part of
# a virtual machine's core.
MODERATION_NS = 50_000
MODERATION_POLLS = 100


class Testbed:
    def __init__(self, tx, rx, queues, tx_cores, rx_cores, napi):
        self.tx_cores, self.rx_cores, self.napi = tx_cores, rx_cores, napi
        self.queues = queues
        self.real = tx is not None
        self.namespace = None
        # What may still be on its way when the generator has ended.
        self.settle_s = 1.0 if self.real else 0.3
        if self.real:
            self.tx, self.rx = tx, rx
            return
        self.namespace = f"fslr{os.getpid()}"
        # The kernel's threads have the port's name in theirs.
        self.tx, self.rx = f"ft{os.getpid() % 10000}", f"fr{os.getpid() % 10000}"
        ip("netns", "add", self.namespace)
        for which in ("all", "default"):
            # Or the ports send frames of their own as soon as they are up.
            self.run("sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
        many = ["numrxqueues", str(queues), "numtxqueues", str(queues)]
        self.run("ip", "link", "add", self.rx, *many, "type", "veth", "peer", "name", self.tx, *many)
        # The receiving end polls (NAPI) from here on, whether or not a program is attached to it.
        self.run("ethtool", "-K", self.rx, "gro", "on")
        for name in ("lo", self.rx, self.tx):
            self.run("ip", "link", "set", name, "up")

    def close(self):
        if self.namespace:
            subprocess.run(["ip", "netns", "del", self.namespace], check=False)
            self.namespace = None

    def prefix(self, cores):
        """What to put before a command that is to run here, on these cores."""
        enter = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*enter, "taskset", "-c", ",".join(map(str, cores))]

    def run(self, *command):
        enter = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        subprocess.run([*enter, *command], check=True)

    def place_napi(self):
        """Has the driver's work done where it is wanted; to be called when the receiver is attached. Gives the threads."""
        if self.real or self.napi == "sender":
            return []
        settings = {"threaded": 1, "gro_flush_timeout": MODERATION_NS, "napi_defer_hard_irqs": MODERATION_POLLS}
        for name, value in settings.items():
            self.run("sh", "-c", f"echo {value} >/sys/class/net/{self.rx}/{name}")
        deadline = time.monotonic() + THREAD_PATIENCE_S
        while len(threads := self.napi_threads()) < self.queues:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.rx} has no NAPI threads: the kernel is older than 5.12, or without them")
            time.sleep(0.01)
        for number, thread in enumerate(threads):
            os.sched_setaffinity(thread, {self.rx_cores[number % len(self.rx_cores)]})
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(NAPI_PRIORITY))
        return threads

    def napi_threads(self):
        found = []
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                name = comm.read_text(encoding="utf-8")
            except OSError:
                continue
            if name.startswith(f"napi/{self.rx}-"):
                found.append(int(comm.parent.name))
        return sorted(found)


def cpu_seconds(thread):
    """What a kernel thread has used so far; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{thread}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)
