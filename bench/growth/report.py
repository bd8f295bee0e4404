#!/usr/bin/env python3
"""What the stages of bench/growth.sh come to: a table, a picture, and whether what must hold does.

    report.py begin|end DIR STAGE     notes how busy the machine is; at the end, writes growth.md and growth.svg
    report.py note DIR STEP begin|end notes only
    report.py assert DIR              fails when a relation does not hold
"""

import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))
import svg  # noqa: E402, beside this folder
from machine import Machine  # noqa: E402

WORK = ("decode", "ingest", "tracker", "process")
STAGES = ("probe", "flows", "sizes", "opens", "memory", "hard", "instructions")

# What must hold, generously: a noisy machine must not fail it, and a design that does not scale must.
FLOWS_RATIO_MAX = 4.0  # process, 10 M flows against 1 M
SIZE_RATIO_MAX = 8.0  # decode, 9000 bytes against 64: lines and pages from memory, never the bytes between them
OPEN_RATIO_MAX = 10.0  # process, every packet a new flow against none: it was 8 before what is common became a third cheaper, on 2026-11-30
BYTES_SPREAD_MAX = 1.35  # accounted bytes a flow, most against least, from 100 k flows on; a power of two is in it
RESIDENT_RATIO_MAX = 1.15  # resident against accounted bytes
FLOW_BYTES_MAX = 300
HARD_RATIO_MAX = {  # process, against the case that it is held against
    "normal-sip": ("normal", 2.0),
    "flood-udp": ("normal", 5.0),
    "flood-syn": ("normal", 5.0),
    # Ten times the table: its cache misses are in it.
    "flood-udp-1m": ("normal", 12.0),
    # Who does not know the key gains nothing.
    "collide-unknown-key": ("thousand-flows", 2.0),
    # Who does pays for a walk over a thousand neighbours, at most. This is no property to be proud of: it is why there is a key.
    "collide-known-key": ("thousand-flows", 100.0),
    "collide-hash": ("thousand-flows", 150.0),
    "elephant": ("normal", 1.5),
    "one-way": ("normal", 1.5),
    "fragments": ("normal", 5.0),
    "fragments-reversed": ("normal", 7.0),
    "fragments-last-only": ("normal", 12.0),
    "tcp-out-of-order": ("tcp-in-order", 6.0),
}


class Found:
    """Every value of a run, by stage, point, what and unit."""

    def __init__(self, folder):
        self.folder = folder
        self.values = {}
        self.probe = []
        for stage in STAGES:
            path = folder / f"{stage}.csv"
            if not path.exists():
                continue
            with path.open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            if stage == "probe":
                self.probe = rows
                continue
            for row in rows:
                key = (stage, f"{row['axis']} {row['point']}" if stage == "instructions" else row["point"], row["what"], row["unit"])
                self.values.setdefault(key, []).append(float(row["value"]))

    def median(self, *key):
        values = self.values.get(key)
        return None if values is None else statistics.median(values)

    def spread(self, *key):
        values = self.values.get(key, [0])
        return min(values), max(values)

    def points(self, stage):
        return list(dict.fromkeys(key[1] for key in self.values if key[0] == stage))


def short(count):
    count = float(count)
    for unit, name in ((1_000_000, " M"), (1000, " k")):
        if count >= unit and count % unit == 0:
            return f"{count / unit:.0f}{name}"
    return f"{count:.0f}"


def opened(found, point):
    return f"{found.median('opens', point, 'opened', 'percent'):.3g} %"


def label(found, stage, point):
    if stage == "opens":
        return opened(found, point)
    return short(point) if stage in ("flows", "memory") else point


def cell(value, digits=0):
    return "" if value is None else f"{value:.{digits}f}"


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def costs(found, stage, head):
    """Medians, and the least and the most of `process`."""
    rows = []
    for point in found.points(stage):
        low, high = found.spread(stage, point, "process", "ns")
        values = [cell(found.median(stage, point, work, "ns"), 1) for work in WORK]
        rows.append([label(found, stage, point), *values, f"{low:.0f} to {high:.0f}"])
    return table([head, *WORK, "process, all windows"], rows)


CONNECTIONS = {"0": "they go on for ever", "1": "a SYN, no answer", "2": "a SYN, refused"}
HARD = {
    "normal": "100 k flows, UDP and TCP by halves, in a table for 100 k",
    "normal-sip": "the same, hashed by SipHash-1-3",
    "flood-udp": "every datagram a new flow, table full",
    "flood-syn": "every SYN a new flow, table full",
    "flood-udp-1m": "the same with a table for 1 M",
    "thousand-flows": "1 000 flows of UDP in the table for 100 k",
    "collide-unknown-key": "1 000 flows that share a bucket under another key",
    "collide-known-key-100": "100 flows that share a bucket, key known",
    "collide-known-key": "1 000 flows that share a bucket, key known",
    "collide-hash": "1 000 flows with one hash (made so behind the hasher)",
    "elephant": "one TCP connection has all packets",
    "one-way": "as normal, without any answer",
    "fragments": "datagrams in two fragments, in order",
    "fragments-reversed": "the last fragment first",
    "fragments-last-only": "last fragments alone: nothing is ever whole",
    "tcp-in-order": "1 000 TCP connections, one direction",
    "tcp-out-of-order": "the same, eight segments each time in reverse",
}


def hard(found):
    rows = []
    for point in found.points("hard"):
        def total(what, unit="flows", point=point):
            return max(found.values.get(("hard", point, what, unit), [0]))

        fate = [f"{total(what, unit):.0f} {name}" for what, unit, name in (
            ("ended-evicted", "flows", "evicted"), ("unattributed", "fragments", "fragments without a first one")) if total(what, unit)]
        fate.insert(0, f"{total('created'):.0f} flows began")
        driver = found.median("hard", point, "driver", "ns")
        rows.append([
            f"{point}: {HARD.get(point, '')}", *[cell(found.median("hard", point, work, "ns"), 1) for work in WORK],
            cell(driver, 1), f"{total('given', 'frames'):.0f} frames: " + ", ".join(fate),
        ])
    return table(["", *WORK, "with streams", "what became of it"], rows)


def lines(found, notes):
    yield f"# What the work costs as it grows, {found.folder.name.removesuffix('-growth')}"
    yield ""
    yield notes["machine"]
    yield f"{notes['compiler']}, features as in the binary; commit {notes['commit']}, one core."
    yield "Medians, ns a frame; points in turns, rounds and windows as in the CSV. Raw: one CSV a stage."
    yield ""
    yield from table(
        ["stage", "began", "seconds", "load before", "after", "taken by the host"],
        [[stage, n["began"], f"{n['seconds']:.0f}", f"{n['load_before']:.1f}", f"{n['load_after']:.1f}", f"{n['stolen']:.1f} %"]
         for stage in STAGES if "seconds" in (n := notes["stages"].get(stage, {}))],
    )
    if any(n.get("load_before", 0) > 0.7 for n in notes["stages"].values()):
        yield "A load before a stage is that of the minutes before it, and says nothing of what ran during it: see there whether figures spread."
        yield ""
    if found.probe:
        yield "## What memory can do"
        yield ""
        yield from table(["", "bytes", "", ""], [[r["what"], r["bytes"], r["value"], r["unit"]] for r in found.probe])
    if found.points("flows"):
        yield "## Live flows"
        yield ""
        yield "64 bytes, UDP and TCP by halves, packets in random order, a quarter of them answers."
        yield ""
        yield from costs(found, "flows", "flows")
    if found.points("sizes"):
        yield "## Frame sizes"
        yield ""
        yield "10 k flows, otherwise the same. What grows is fetching the headers: a frame lies on pages of its own."
        yield ""
        yield from costs(found, "sizes", "bytes")
    if found.points("opens"):
        yield "## New connections"
        yield ""
        yield (
            "TCP from the SYN to the last ACK, at 100 k packets a second: of n % of them, n k connections a second begin and as many end."
            " More than 16.7 % no complete connection can have: 50 % are refused, 100 % unanswered. Memory is that of what is live,"
            " closed connections of the last 5 s and unanswered ones of the last 10 s among it."
        )
        yield ""
        rows = []
        for point in found.points("opens"):
            packets = CONNECTIONS.get(point, f"{point} packets each")
            values = [cell(found.median("opens", point, work, "ns"), 1) for work in WORK]
            live = short(round(found.median("opens", point, "live", "flows"), -2))
            rows.append([opened(found, point), packets, live, *values])
        yield from table(["packets that open one", "connections", "live flows", *WORK], rows)
    if found.points("memory"):
        yield "## Memory"
        yield ""
        yield "A tracker with every place taken, its ingest included: what it allocated, and what is resident for it."
        yield ""
        yield from table(
            ["flows", "allocated, MiB", "resident, MiB", "allocated a flow, bytes", "resident a flow"],
            [[short(p), *[cell((found.median("memory", p, w, "bytes") or 0) / 2**20, 1) for w in ("accounted", "resident")],
              *[cell(found.median("memory", p, f"{w}-a-flow", "bytes"), 1) for w in ("accounted", "resident")]]
             for p in found.points("memory")],
        )
    if found.points("hard"):
        yield "## Hard cases"
        yield ""
        yield from hard(found)
    if found.points("instructions"):
        yield "## Instructions"
        yield ""
        yield "callgrind, a frame, 20 000 of them; tables of the hard cases a tenth."
        yield ""
        works = ("decode", "ingest", "tracker")
        yield from table(["", *works], [
            [point, *[cell(found.median("instructions", point, work, "instructions")) for work in works]] for point in found.points("instructions")
        ])
    yield "## What must hold"
    yield ""
    failures = failed(found)
    yield from (f"- NOT MET: {failure}" for failure in failures)
    if not failures:
        yield "All of it, of what was run (`bench/growth/report.py` has the list)."


def picture(found):
    panels = []
    for stage, title, below in (
        ("flows", "ns a frame, live flows", "live flows"), ("sizes", "ns a frame, frame sizes", "bytes of a frame"),
        ("opens", "ns a frame, new connections", "packets that open a connection"),
    ):
        points = found.points(stage)
        if points:
            labels = {point: label(found, stage, point) for point in points}
            drawn = [
                svg.Line(work, colour, {labels[p]: found.median(stage, p, work, "ns") for p in points})
                for work, colour in zip(WORK, svg.COLOURS)
            ]
            panels.append(svg.panel(title, below, list(labels.values()), drawn))
    points = [point for point in found.points("memory") if float(point) >= 10_000]
    if points:
        kinds = (("accounted-a-flow", "allocated", svg.COLOURS[0]), ("resident-a-flow", "resident", svg.COLOURS[1]))
        drawn = [svg.Line(name, colour, {short(p): found.median("memory", p, what, "bytes") for p in points}) for what, name, colour in kinds]
        panels.append(svg.panel("bytes a flow, every place taken", "flows", [short(p) for p in points], drawn))
    return svg.picture(panels)


def failed(found):
    failures = []

    def ratio(stage, what, many, few, most, unit="ns"):
        one, other = (found.median(stage, point, what, unit) for point in (many, few))
        if one is not None and other and one > most * other:
            failures.append(f"{stage}, {what}: {many} costs {one:.0f} {unit}, {few} {other:.0f}: {one / other:.1f} times, at most {most:g} are wanted")

    ratio("flows", "process", "10000000", "1000000", FLOWS_RATIO_MAX)
    ratio("sizes", "decode", "9000", "64", SIZE_RATIO_MAX)
    ratio("opens", "process", "1", "0", OPEN_RATIO_MAX)
    for case, (base, most) in HARD_RATIO_MAX.items():
        ratio("hard", "process", case, base, most)
    large = [point for point in found.points("memory") if float(point) >= 100_000]
    bytes_a_flow = {point: found.median("memory", point, "accounted-a-flow", "bytes") for point in large}
    if large and max(bytes_a_flow.values()) > BYTES_SPREAD_MAX * min(bytes_a_flow.values()):
        failures.append(f"memory: bytes a flow are not flat: {bytes_a_flow}")
    for point in large:
        resident = found.median("memory", point, "resident-a-flow", "bytes")
        if bytes_a_flow[point] > FLOW_BYTES_MAX or resident > RESIDENT_RATIO_MAX * bytes_a_flow[point]:
            failures.append(f"memory: {point} flows take {bytes_a_flow[point]:.0f} bytes each, {resident:.0f} resident; {FLOW_BYTES_MAX} are allowed")
    return failures


def output(*command):
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def note(folder, stage, begin):
    path = folder / "notes.json"
    notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"stages": {}}
    machine = Machine()
    if begin:
        notes["stages"][stage] = {
            "began": time.strftime("%F %R"), "at": time.time(), "load_before": machine.load_before[0], "times": machine.before,
        }
    else:
        one = notes["stages"][stage]
        machine.before = one.pop("times")
        machine.end()
        one |= {"seconds": time.time() - one.pop("at"), "load_after": machine.load_after[0], "stolen": machine.stolen_percent}
        notes["machine"] = machine.description()
        notes["compiler"] = " ".join(output("rustc", "--version").split()[:2])
        changed = output("git", "status", "--porcelain", "--untracked-files=no", "src", "bench")
        notes["commit"] = output("git", "rev-parse", "--short", "HEAD") + (", changed" if changed else "")
    path.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    return notes


def main():
    action, folder, *stage = sys.argv[1:]
    folder = Path(folder).resolve()
    if action == "assert":
        failures = failed(Found(folder))
        for failure in failures:
            print(f"growth.sh: {failure}", file=sys.stderr)
        return 1 if failures else 0
    if action == "note":
        # For a run whose report is another's.
        note(folder, stage[0], stage[1] == "begin")
        return 0
    notes = note(folder, stage[0], action == "begin")
    if action == "end":
        found = Found(folder)
        (folder / "growth.md").write_text("\n".join(lines(found, notes)) + "\n", encoding="utf-8")
        (folder / "growth.svg").write_text(picture(found), encoding="utf-8")
        print(f"growth.sh: {stage[0]} took {notes['stages'][stage[0]]['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
