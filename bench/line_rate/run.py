"""The run behind scripts/line-rate.sh, which explains its options and prepares what is used here."""

import argparse
import csv
import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import receivers
import report
from search import Bench, Load, Throughput, Trial, say
from testbed import Testbed

# A million packets a second of the smallest frames, by the defaults of the sensor: none may be lost.
HOLD_RATE = 1_000_000
HOLD_SIZE = "64"

# Peers are compared where they do best and where they are used.
PEER_SIZES = ("64", "imix")


class Out:
    """The files of a run: each line is there as soon as it is known."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trials = self.table("trials.csv", Trial)
        self.found = self.table("line-rate.csv", Throughput)

    def table(self, name, kind):
        file = open(self.folder / name, "w", encoding="utf-8", newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(kind)])
        return file, writer

    def row(self, table, value):
        file, writer = table
        numbers = (f"{v:.6g}" if isinstance(v, float) and v < 1e3 else round(v) if isinstance(v, float) else v
                   for v in dataclasses.astuple(value))
        writer.writerow("" if v is None else v for v in numbers)
        file.flush()

    def trial(self, trial):
        self.row(self.trials, trial)

    def throughput(self, found):
        self.row(self.found, found)


def arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    words = str.split
    cores = lambda text: [int(core) for core in text.split(",")]
    for name, kind in (
        ("--mode", str), ("--sizes", words), ("--flows", words), ("--receivers", words), ("--peers", words),
        ("--seconds", float), ("--resolution", float), ("--loss", float), ("--tries", int), ("--hold-seconds", float),
        ("--queues", int), ("--napi", str), ("--tx-cores", cores), ("--rx-cores", cores), ("--tx-interface", str),
        ("--rx-interface", str), ("--out", str), ("--note", str), ("--target", str),
    ):
        parser.add_argument(name, type=kind)
    parser.add_argument("--assert", action="store_true", dest="asserted")
    return parser.parse_args()


def all_receivers(options):
    """By name, those that are wanted and here; and the names of those that are not here."""
    target = Path(options.target)
    known = {name: receivers.Bare(name, target / "examples/receive") for name in ("xdp-drop", "bare-af-xdp", "bare-af-packet")}
    flowscope = target / "flowscope"
    told = subprocess.run([flowscope, "live", "--help"], check=True, capture_output=True, text=True).stdout
    for backend in ("af-xdp", "af-packet", "pcap"):
        if f"- {backend}" in told:
            known[f"flowscope-{backend}"] = receivers.Flowscope(f"flowscope-{backend}", flowscope)
    absent = []
    for name in options.peers:
        if shutil.which(name):
            known[name] = receivers.PEERS[name](name)
        else:
            absent.append(name)
    wanted = options.receivers or list(known)
    for name in wanted:
        if name not in known:
            sys.exit(f"line-rate.sh: no receiver {name} here; there are: {' '.join(known)}")
    return {name: known[name] for name in wanted}, absent


def main():
    options = arguments()
    # The namespace goes with the run, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("line-rate.sh: ended by SIGTERM"))
    known, absent = all_receivers(options)
    flows = [int(count) for count in options.flows]
    out = Out(options.out)
    machine = report.Machine()
    bed = Testbed(
        options.tx_interface, options.rx_interface, options.queues, options.tx_cores, options.rx_cores, options.napi
    )
    try:
        bench = Bench(bed, Path(options.target) / "examples/send", out, options)
        start = time.monotonic()
        found, held, broken = measure(bench, known, flows, options)
    finally:
        bed.close()
    machine.end()
    run = report.Run(options, machine, bed, found, held, broken, bench.inexact, absent, time.monotonic() - start)
    failures = run.failures()
    report.write(out.folder, run, failures)
    if failures:
        say("")
        for failure in failures:
            print(f"line-rate.sh: {failure}", file=sys.stderr)
        if options.asserted:
            sys.exit(1)


def measure(bench, known, flows, options):
    """Each size in turn, and all receivers in turn at each, so that what is compared was measured close together."""
    found, held, broken = [], [], {}
    for size in options.sizes:
        for name, receiver in known.items():
            if not receiver.ours and size not in PEER_SIZES:
                continue
            # To what touches nothing a flow is as good as another.
            counts = flows if name.startswith("flowscope-") or not receiver.ours else flows[:1]
            for count in counts:
                if name in broken:
                    continue
                try:
                    found.append(bench.search(receiver, Load(size, count)))
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    if receiver.ours:
                        raise
                    # A peer that fails is left out of what follows.
                    broken[name] = str(error).splitlines()[0]
                    say(f"{name} is left out: {error}")
    say(f"== {HOLD_RATE} packets a second for {options.hold_seconds:g} s")
    for name, receiver in known.items():
        if name.startswith("flowscope-"):
            for count in flows:
                held.append(bench.trial(receiver, Load(HOLD_SIZE, count), HOLD_RATE, options.hold_seconds))
    return found, held, broken


if __name__ == "__main__":
    main()
