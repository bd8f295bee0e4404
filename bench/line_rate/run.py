"""The run behind scripts/line-rate.sh, which explains its options and prepares what is used here."""

import argparse
import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import receivers
import report
from others import Others
from search import Bench, Load, Throughput, Trial, say
from testbed import Testbed

# A million packets a second of the smallest frames, by the defaults of the sensor: none may be lost.
HOLD_RATE = 1_000_000
HOLD_SIZE = "64"

# Peers are compared where they do best and where they are used.
PEER_SIZES = ("64", "imix")


# What all pieces of a run have in common.
SHARED = ("loss", "tries", "seconds", "resolution", "hold_seconds", "queues", "napi", "tx_cores", "rx_cores", "tx_interface", "rx_interface")
# What a search takes, when there was none yet.
SEARCH_S = 30.0

SHUNTING = "flowscope-af-xdp-shunting"


class Out:
    """The files of a run: each line is there as soon as it is known, and a later piece of the run adds to them."""

    def __init__(self, options):
        self.folder = Path(options.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        shared = {name: getattr(options, name) for name in SHARED}
        self.state_file = self.folder / "pieces.json"
        self.state = {"options": shared, "sizes": [], "flows": [], "pieces": [], "broken": {}}
        if options.resume and self.state_file.exists():
            self.state = json.loads(self.state_file.read_text(encoding="utf-8"))
            if differ := [name for name in SHARED if self.state["options"][name] != shared[name]]:
                sys.exit(f"line-rate.sh: {self.folder} is of a run with other {', '.join(differ)}: use the same, or another --out")
        for key in ("sizes", "flows"):
            self.state[key] += [one for one in getattr(options, key) if one not in self.state[key]]
        self.rows, self.files = {}, {}
        for name, kind in (("trials.csv", Trial), ("line-rate.csv", Throughput)):
            self.open(name, kind, options.resume)

    def open(self, name, kind, resume):
        path = self.folder / name
        self.rows[kind] = read_rows(path, kind) if resume and path.exists() else []
        file = open(path, "w", encoding="utf-8", newline="")
        self.files[kind] = file, csv.writer(file, lineterminator="\n")
        self.files[kind][1].writerow([field.name for field in dataclasses.fields(kind)])
        rows, self.rows[kind] = self.rows[kind], []
        for row in rows:
            self.row(row)

    def row(self, value):
        file, writer = self.files[type(value)]
        numbers = (f"{v:.6g}" if isinstance(v, float) and v < 1e3 else round(v) if isinstance(v, float) else v
                   for v in dataclasses.astuple(value))
        writer.writerow("" if v is None else v for v in numbers)
        file.flush()
        self.rows[type(value)].append(value)

    def trial(self, trial):
        self.row(trial)

    def throughput(self, found):
        self.row(found)

    def of(self, kind, receiver, load):
        """What is there of a receiver under a load."""
        return [row for row in self.rows[kind] if (row.receiver, row.size, row.flows) == (receiver, load.size, load.flows)]

    def close(self):
        for file, _ in self.files.values():
            file.close()

    def save(self):
        """Whole, or as it was."""
        new = self.state_file.with_suffix(".new")
        new.write_text(json.dumps(self.state, indent=1) + "\n", encoding="utf-8")
        new.replace(self.state_file)


def read_rows(path, kind):
    """Rows of a table, but not the last one of a run that was killed, if it is not whole."""
    fields = dataclasses.fields(kind)
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.reader(file)
        if next(table, None) != [field.name for field in fields]:
            sys.exit(f"line-rate.sh: {path} has other columns: use another --out")
        for cells in table:
            if len(cells) != len(fields):
                break
            rows.append(kind(*(value(cell, field.type) for cell, field in zip(cells, fields))))
    return rows


def value(cell, kind):
    if kind is str:
        return cell
    if not cell:
        return None
    return float(cell) if kind is float else int(cell)


def arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    words = str.split
    cores = lambda text: [int(core) for core in text.split(",")]
    for name, kind in (
        ("--mode", str), ("--sizes", words), ("--flows", words), ("--receivers", words), ("--peers", words),
        ("--seconds", float), ("--resolution", float), ("--loss", float), ("--tries", int), ("--hold-seconds", float),
        ("--queues", int), ("--napi", str), ("--tx-cores", cores), ("--rx-cores", cores), ("--tx-interface", str),
        ("--rx-interface", str), ("--out", str), ("--note", str), ("--target", str), ("--only", words),
        ("--flows-sizes", words), ("--flows-peers", words), ("--flows-hold", words), ("--end-after", float),
    ):
        parser.add_argument(name, type=kind)
    parser.add_argument("--resume", action="store_true")
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
            known[f"flowscope-{backend}"] = receivers.Flowscope(f"flowscope-{backend}", flowscope, backend)
    absent = []
    for name in options.peers:
        if shutil.which(name):
            known[name] = receivers.PEERS[name](name)
        else:
            absent.append(name)
    wanted = options.receivers or list(known)
    # Asked for by name alone, for its load is to be one of large flows.
    known[SHUNTING] = receivers.Flowscope(SHUNTING, flowscope, "af-xdp", "--shunt-above", "10kB")
    for name in wanted:
        if name not in known:
            sys.exit(f"line-rate.sh: no receiver {name} here; there are: {' '.join(known)}")
    return {name: known[name] for name in wanted}, absent


def main():
    options = arguments()
    # The namespace goes with the run, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("line-rate.sh: ended by SIGTERM"))
    known, absent = all_receivers(options)
    out = Out(options)
    machine = report.Machine()
    bed = Testbed(
        options.tx_interface, options.rx_interface, options.queues, options.tx_cores, options.rx_cores, options.napi
    )
    others, start = Others(), time.monotonic()
    try:
        left = measure(Bench(bed, Path(options.target) / "examples/send", out, options), known, options, out)
    finally:
        bed.close()
        # However it ended: what was measured is there, and is shown.
        piece = {"seconds": round(time.monotonic() - start), "others_percent": others.percent(), "stolen_percent": machine.stolen()}
        out.state["pieces"].append(piece)
        out.save()
        out.close()
        run = report.Run(options, machine, bed, out.rows[Throughput], out.rows[Trial], out.state, absent)
        failures = run.failures()
        report.write(out.folder, run, failures)
    if left:
        say(f"{left} searches and trials of a million are left: the same command with --resume goes on")
        sys.exit(75)
    if failures:
        say("")
        for failure in failures:
            print(f"line-rate.sh: {failure}", file=sys.stderr)
        if options.asserted:
            sys.exit(1)


def steps(known, options):
    """(what, receiver, load): each size in turn, and all receivers in turn at each, so that what is compared was measured close
    together; and at last the trials at a million."""
    if "search" in options.only:
        for size in options.sizes:
            for receiver in known.values():
                flows = options.flows
                if not receiver.ours:
                    flows = [count for count in flows if count in options.flows_peers] if size in PEER_SIZES else []
                elif not receiver.name.startswith("flowscope-") or size not in options.flows_sizes:
                    # To what touches nothing a flow is as good as another.
                    flows = flows[:1]
                for count in flows:
                    yield "search", receiver, Load(size, int(count))
    if "hold" in options.only and options.hold_seconds:
        for receiver in known.values():
            for count in options.flows:
                if receiver.name.startswith("flowscope-") and count in options.flows_hold:
                    yield "hold", receiver, Load(HOLD_SIZE, int(count))


def measure(bench, known, options, out):
    """Does what is not there yet, and gives how much it left."""
    start, broken, longest, done = time.monotonic(), out.state["broken"], SEARCH_S, 0
    near = {}
    missing = []
    for what, receiver, load in steps(known, options):
        there = out.of(Throughput, receiver.name, load) if what == "search" else [
            trial for trial in out.of(Trial, receiver.name, load) if trial.purpose == "hold"]
        if there and what == "search" and there[-1].limit == "receiver":
            near[receiver.name] = there[-1].rate
        if not there:
            missing.append((what, receiver, load))
    for what, receiver, load in missing:
        if receiver.name in broken:
            done += 1
            continue
        begin = time.monotonic()
        takes = longest if what == "search" else options.hold_seconds
        if done and options.end_after and begin - start + takes > options.end_after:
            break
        try:
            if what == "hold":
                bench.trial(receiver, load, HOLD_RATE, options.hold_seconds, what)
            else:
                found = bench.search(receiver, load, near.get(receiver.name))
                if found.limit == "receiver" and found.rate:
                    near[receiver.name] = found.rate
                longest = max(longest, time.monotonic() - begin)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            if receiver.ours:
                raise
            # A peer that fails is left out of what follows.
            broken[receiver.name] = str(error).splitlines()[0]
            say(f"{receiver.name} is left out: {error}")
        done += 1
    return len(missing) - done


if __name__ == "__main__":
    main()
