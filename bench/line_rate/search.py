"""Trials, and the search for the highest rate without loss (RFC 2544, 26.1)."""

import json
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

import testbed
from others import OTHERS_PERCENT_MAX, Others

# Sending may take half as long again as planned, and starting takes some time.
SEND_PATIENCE_S = 10
# A generator that is this much below what was asked has reached its own limit.
SLACK = 0.98
# So often it is given another chance: a machine that is not quiet may have kept it from its core.
REPEATS_MAX = 2
TRIALS_MAX = 40
# Below this part of what the generator can no further rate is tried: the receiver loses at every one.
FLOOR = 0.001
# From one rate to the next as long as none passed, or none failed: at first where something like it is known, and at most.
NEAR_STEP = 1.15
STEP_MAX = 2.0
# A trial of all that the generator can has failed: the first rate after it is below that.
OVERLOAD_PART = 0.98
# From the moment that the receiver says that it is ready to the first frame: its threads take their places.
READY_S = 0.2
# What a frame takes on the wire beside its bytes with FCS: preamble, start, gap.
WIRE_OVERHEAD_BYTES = 20
MIX_BYTES = (7 * 64 + 4 * 594 + 1518) / 12


@dataclass(frozen=True)
class Load:
    """What comes: frames of a size, with FCS as RFC 2544 counts, of a number of flows."""

    size: str
    flows: int

    def gigabits(self, rate):
        size = MIX_BYTES if self.size == "imix" else int(self.size)
        return rate * (size + WIRE_OVERHEAD_BYTES) * 8 / 1e9


@dataclass
class Trial:
    receiver: str
    size: str
    flows: int
    asked: str
    rate: float
    seconds: float
    sent: int
    refused: int
    offered: int | None
    delivered: int
    dropped: str
    loss: int
    # Processor time: the receiver's processes, and the kernel's threads for its driver.
    cpu_s: float
    napi_s: float
    # Whether all that was sent is accounted for: sent = refused + offered, offered = delivered + dropped.
    exact: str
    load: float
    # What it was for: search, or hold.
    purpose: str
    # Of all processors' time, what went to processes that are not of this run, and to the host.
    others_percent: float
    # What does not add up.
    fault: str = ""

    @property
    def lost_percent(self):
        return 100 * self.loss / max(self.sent, 1)


@dataclass
class Throughput:
    """What a search found."""

    receiver: str
    size: str
    flows: int
    # Highest rate that all frames of a trial were received at; 0 when there is none.
    rate: float
    # Frames received a second when as many came as the generator could send.
    overload: float
    # The generator's rate then.
    overload_sent: float
    gigabits: float
    # What ended the search: the receiver, or the generator.
    limit: str
    trials: int


class Bench:
    def __init__(self, bed, sender, out, options):
        self.bed, self.sender, self.out = bed, sender, out
        self.options = options

    def trial(self, receiver, load, rate, seconds, purpose="search"):
        """One trial; `rate` is None for all that the generator can."""
        others = Others()
        with tempfile.TemporaryDirectory(prefix="flowscope-line-rate-") as work:
            receiver.start(self.bed, load.flows, work)
            try:
                threads = self.bed.place_napi()
                napi_before = sum(map(testbed.cpu_seconds, threads))
                cpu_before = testbed.cpu_seconds(receiver.process.pid)
                time.sleep(READY_S)
                sent = self.send(receiver, load, rate, seconds)
                time.sleep(self.bed.settle_s + receiver.settle_s)
                receiver.before_end(self.bed)
                napi = sum(map(testbed.cpu_seconds, threads)) - napi_before
                cpu = testbed.cpu_seconds(receiver.process.pid) - cpu_before
                received = receiver.end()
            finally:
                receiver.kill()
        trial = Trial(
            receiver=receiver.name,
            size=load.size,
            flows=load.flows,
            asked=str(rate or "max"),
            rate=sent["rate"],
            seconds=sent["seconds"],
            sent=sent["attempted"],
            refused=sent["refused"],
            offered=received.offered,
            delivered=received.delivered,
            dropped=";".join(f"{reason}={frames}" for reason, frames in sorted(received.dropped.items())),
            loss=sent["attempted"] - received.delivered,
            cpu_s=round(cpu, 2),
            napi_s=round(napi, 2),
            exact="yes",
            load=float(open("/proc/loadavg", encoding="ascii").read().split()[0]),
            purpose=purpose,
            others_percent=others.percent(),
        )
        self.check(receiver, trial, sent, received)
        self.out.trial(trial)
        say(
            f"  {receiver.name}, {load.size} bytes, {load.flows} flows, {trial.asked}/s: sent {trial.sent} at {trial.rate:.0f}/s,"
            f" received {trial.delivered}, lost {trial.loss} ({trial.lost_percent:.4f} %)"
            + (f" [refused by the port {trial.refused}; {trial.dropped}]" if trial.loss else "")
        )
        return trial

    def check(self, receiver, trial, sent, received):
        """That every frame is accounted for, where the receiver can tell."""
        faults = list(received.faults)
        if sent["attempted"] != sent["taken"] + sent["refused"]:
            faults.append(f"{sent['attempted']} sent off, {sent['taken']} taken and {sent['refused']} refused by the port")
        if receiver.missed and not trial.loss:
            # In overload there may be no processor left for it.
            faults.append("its metrics could not be had in time")
        if receiver.ours:
            if received.offered != sent["taken"]:
                faults.append(f"{sent['taken']} frames went in, the receiver was offered {received.offered}")
            known = received.delivered + sum(received.dropped.values())
            if received.offered != known:
                faults.append(f"{received.offered} offered, {known} delivered or dropped")
        elif received.offered is None or received.offered != sent["taken"]:
            # A peer's account is its own: it is told, and not held against this bench.
            trial.exact = "untold" if received.offered is None else "no"
        if faults:
            trial.exact, trial.fault = "no", "; ".join(faults)
            say(f"!!! NOT EXACT: {receiver.name}, {trial.size} bytes, {trial.flows} flows, {trial.asked}/s: {trial.fault}")

    def send(self, receiver, load, rate, seconds):
        command = [*self.bed.prefix(self.bed.tx_cores), self.sender, "--interface", self.bed.tx]
        command += ["--rate", str(rate or "max"), "--seconds", str(seconds), "--size", load.size]
        command += ["--flows", str(load.flows), "--cores", ",".join(map(str, self.bed.tx_cores))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        done = threading.Event()

        def attend():
            while not done.wait(0.05):
                receiver.while_sending(self.bed)

        attendant = threading.Thread(target=attend)
        attendant.start()
        try:
            told, errors = process.communicate(timeout=2 * seconds + SEND_PATIENCE_S)
        finally:
            done.set()
            attendant.join()
            if process.poll() is None:
                process.kill()
        if process.returncode:
            raise RuntimeError(f"the generator failed:\n{errors}")
        return json.loads(told)

    def lossless(self, receiver, load, rate):
        """The first trial without loss of as many as are allowed, else the last one. One in which the generator was kept
        from its rate, or that lost frames while others had the processors, says nothing, and is repeated."""
        for _ in range(self.options.tries):
            for _ in range(1 + REPEATS_MAX):
                trial = self.trial(receiver, load, rate, self.options.seconds)
                passed = trial.lost_percent <= self.options.loss
                if trial.rate >= SLACK * rate if passed else trial.others_percent <= OTHERS_PERCENT_MAX:
                    break
            if passed:
                break
        return trial, passed

    def search(self, receiver, load, near=None):
        """From all that the generator can, which may be an overload that starves the receiver and then says nothing of what it
        can: downwards in growing steps to a rate that passes, then by halves. `near` is what was found for something like it:
        the first rate that is tried then, with small steps up and down from it."""
        first = self.trial(receiver, load, None, self.options.seconds)
        overload = first.delivered / first.seconds
        low, high, limit, trials = 0.0, first.rate, "receiver", 1
        if first.lost_percent <= self.options.loss:
            low, limit = first.rate, "generator"
        for_sure = False
        step = NEAR_STEP if near or overload > high / 2 else STEP_MAX
        rate = min(near or max(overload, high / 2), OVERLOAD_PART * high)
        floor = FLOOR * first.rate
        while limit == "receiver" and high - low > self.options.resolution / 100 * high and trials < TRIALS_MAX:
            if high < floor:
                break
            # A rate of 0 would be all that the generator can.
            trial, passed = self.lossless(receiver, load, max(int(rate), 1))
            trials += 1
            if passed:
                low = max(low, trial.rate)
                if trial.rate < SLACK * rate:
                    limit = "generator"
            else:
                high, for_sure = min(high, rate), True
            rate = (low + high) / 2
            if low == 0:
                rate = high / step
            elif not for_sure:
                rate = min(low * step, rate)
            step = min(step * step, STEP_MAX)
        found = Throughput(
            receiver.name, load.size, load.flows, low, overload, first.rate, load.gigabits(low), limit, trials
        )
        self.out.throughput(found)
        say(f"{receiver.name}, {load.size} bytes, {load.flows} flows: {low / 1e6:.3f} M/s without loss ({limit})")
        return found


def say(text):
    print(text, flush=True)
