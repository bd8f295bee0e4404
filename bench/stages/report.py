#!/usr/bin/env python3
"""Puts instructions and samples down to the stages of a frame's way, for bench/stages.sh.

    report.py count PROGRAM WORKLOAD FRAMES CALLGRIND CALLGRIND-OF-ONE-FRAME
    report.py samples PROGRAM WORKLOAD PERF-SCRIPT
    report.py table DIR
"""

import collections
import csv
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

# The stages, and the source files that are theirs. The innermost file that is here decides; one that is not, such as the
# standard library's, belongs to what it was inlined into.
STAGES = (
    ("read file bytes", None),
    ("parse record", r"/src/(capture|frame)|/memmap2-"),
    ("decode", r"/src/decode"),
    ("key, hash, packet", r"/src/flow/(key|extract|ingest|packet|fragments)\.rs|/foldhash-"),
    ("steer", r"/src/sensor/(steer|queues|rss|pace)\.rs"),
    ("table look-up", r"/src/flow/table\.rs"),
    ("entry update", r"/src/flow/(flows|entry|stats|history|tracker|observer|shunted|extra)|/src/flow/flows/"),
    ("TCP", r"/src/flow/tcp"),
    ("timers", r"/src/flow/wheel\.rs"),
    ("record", r"/src/export/(jsonl|text|community_id|records)\.rs|/(itoa|sha1|base64|digest|block-buffer)-"),
    ("write", r"/src/export/(sink|queue|drop_behind)\.rs|/crossbeam-queue-"),
    ("memory at first touch", None),
    ("the rest", None),
)
# Of the kernel, by any function on the way to it.
KERNEL = (
    ("memory at first touch", r"clear_page|clear_huge|clear_folio|anonymous_page|huge_pmd|alloc_pages|charge_memcg"),
    ("write", r"ksys_write|vfs_write|ksys_pwrite|do_writev|fadvise"),
    ("read file bytes", r"filemap|do_read_fault|do_fault|zap_|unmap|exit_mmap|next_uptodate|madvise"),
)
REST = "the rest"
# The rows that fetch the file's bytes: who touches a line first pays for it.
FETCHING = ("read file bytes", "parse record", "decode")


def stage_of(files):
    for file in files:
        for stage, pattern in STAGES:
            if pattern and re.search(pattern, file):
                return stage
    return REST


def stages_by_address(program, addresses):
    """The stage of each address of the program, by the files that it is inlined from, innermost first."""
    asked = "".join(f"{address:#x}\n" for address in sorted(addresses))
    lines = subprocess.run(["addr2line", "-a", "-i", "-e", program], input=asked, capture_output=True, text=True, check=True).stdout
    files, found = {}, None
    for line in lines.splitlines():
        if re.fullmatch(r"0x[0-9a-f]+", line):
            found = files.setdefault(int(line, 16), [])
        else:
            found.append(line)
    return {address: stage_of(files[address]) for address in addresses}


def costs(path, program):
    """Instructions, misses of the first and of the last cache, by address of the program; and those of other objects."""
    by_address, elsewhere = collections.defaultdict(lambda: [0, 0, 0]), [0, 0, 0]
    inside, skip, events, address = False, False, [], 0
    names = {}
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        first = line[:1]
        if first in "+-*0123456789" and line:
            where, _, *values = line.split()
            if where == "*":
                pass
            elif where[0] in "+-":
                address += int(where)
            else:
                address = int(where, 0)
            if skip:
                # What a call costs is told where it is spent.
                skip = False
                continue
            cost = dict(zip(events, map(int, values)))
            sums = by_address[address] if inside else elsewhere
            sums[0] += cost.get("Ir", 0)
            sums[1] += cost.get("D1mr", 0) + cost.get("D1mw", 0)
            sums[2] += cost.get("DLmr", 0) + cost.get("DLmw", 0)
        elif line.startswith(("ob=", "cob=")):
            number, _, name = line.split("=", 1)[1].partition(" ")
            if name:
                names[number] = name
            if first == "o":
                inside = names[number] == program
        elif line.startswith("calls="):
            skip = True
        elif line.startswith("events:"):
            events = line.split()[1:]
    return by_address, elsewhere


def count(program, workload, frames, whole, one):
    frames = int(frames)
    sums = collections.defaultdict(lambda: [0, 0, 0])
    for path, sign in ((whole, 1), (one, -1)):
        by_address, elsewhere = costs(path, program)
        stages = stages_by_address(program, by_address)
        for address, cost in by_address.items():
            sums[stages[address]] = [a + sign * b for a, b in zip(sums[stages[address]], cost)]
        sums[REST] = [a + sign * b for a, b in zip(sums[REST], elsewhere)]
    for stage, _ in STAGES:
        if stage in sums:
            print(",".join([workload, str(frames), f'"{stage}"', *(f"{value / frames:.3f}" for value in sums[stage])]))


def code_shift(program):
    """perf tells where in the file an instruction is; the loader's address is so much more."""
    headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    code = re.search(r"^ *LOAD +(0x[0-9a-f]+) (0x[0-9a-f]+) .* R E ", headers, re.M)
    return int(code.group(2), 16) - int(code.group(1), 16)


def samples(program, workload, path):
    counts, addresses = collections.Counter(), []
    shift = code_shift(program)
    for sample in re.split(r"\n\s*\n", Path(path).read_text(encoding="utf-8", errors="replace")):
        chain = [re.fullmatch(r"\s*([0-9a-f]+) (.*) \((.*)\)", line) for line in sample.splitlines()]
        chain = [match.groups() for match in chain if match]
        if not chain:
            continue
        address, _, where = chain[0]
        if where == program:
            addresses.append(int(address, 16) + shift)
        elif "kernel" in where:
            way = " ".join(name for _, name, place in chain if "kernel" in place)
            counts[next((stage for stage, pattern in KERNEL if re.search(pattern, way)), REST)] += 1
        else:
            counts[REST] += 1
    stages = stages_by_address(program, set(addresses))
    counts.update(stages[address] for address in addresses)
    for stage, _ in STAGES:
        if counts[stage]:
            print(f'{workload},"{stage}",{counts[stage]}')


def rows(path):
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(folder):
    folder = Path(folder)
    (folder / "stages.md").write_text("\n".join(lines(folder)) + "\n", encoding="utf-8")
    print((folder / "stages.md").read_text(encoding="utf-8"))


def lines(folder):
    notes = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    counts = {(r["workload"], r["stage"]): r for r in rows(folder / "counts.csv")}
    sampled = {(r["workload"], r["stage"]): int(r["samples"]) for r in rows(folder / "samples.csv")}
    probe = {r["what"]: float(r["value"]) for r in rows(folder / "probe.csv")}
    yield f"# A frame's way, stage by stage, {folder.name.removesuffix('-stages')}"
    yield ""
    yield notes["machine"]
    yield f"{notes['compiler']}; commit {notes['commit']}. `flowscope replay`, one worker, JSON records to a file, one core."
    for step, note in notes["stages"].items():
        if "seconds" in note:
            yield f"{step}: {note['began']}, {note['seconds']:.0f} s, load {note['load_before']:.1f} before and {note['load_after']:.1f} after."
    yield ""
    yield "Instructions and misses by callgrind (caches of 48 KiB and 2 MiB, simulated, without prefetching); ns by samples of"
    yield "the processor's clock, shares of the median run. The limit: for a file's bytes, what it takes to read them in order; for all"
    yield "else, misses of the last simulated cache at what one takes when sixteen are under way, in the third cache to in memory."
    if ("A", "record") in counts:
        yield f"Of A {int(counts['A', 'record']['frames']) // 1000} k frames are counted: its records, which come at the end, weigh more there than in the ns."
    if probe:
        yield ""
        yield (
            f"Probe: {probe['read in order']:.1f} GB/s read in order, {probe['copied']:.1f} copied; a line of the third cache"
            f" {probe['third cache: chase']:.0f} ns alone and {probe['third cache: overlapped']:.1f} with fifteen others, one of memory"
            f" {probe['memory: chase']:.0f} and {probe['memory: overlapped']:.1f}."
        )
    for workload in sorted({key[0] for key in counts} | {key[0] for key in sampled}):
        runs = [r for r in rows(folder / "times.csv") if r["workload"] == workload]
        total_ns = frame_bytes = None
        if runs:
            frames = int(runs[0]["frames"])
            total_ns = statistics.median(int(r["microseconds"]) for r in runs) * 1000 / frames
            frame_bytes = int(runs[0]["file_bytes"]) / frames
        yield ""
        yield f"## {workload}" + (f": {total_ns:.1f} ns a frame, of {frame_bytes:.0f} bytes in the file" if runs else "")
        yield ""
        yield "| stage | ns | instructions | misses of 48 KiB | of 2 MiB | limit, ns |"
        yield "|---|---|---|---|---|---|"
        all_samples = sum(number for (of, _), number in sampled.items() if of == workload)
        sums, limits = [0.0] * 4, [0.0, 0.0]
        for stage, _ in STAGES:
            row = counts.get((workload, stage), {})
            ns = total_ns * sampled.get((workload, stage), 0) / all_samples if all_samples and total_ns else None
            values = [float(row.get(name, 0)) for name in ("instructions", "first_cache_misses", "last_cache_misses")]
            limit = limit_of(stage, values[2], frame_bytes, probe)
            if not any(values) and not ns and not limit:
                continue
            sums = [total + (value or 0) for total, value in zip(sums, (ns, *values))]
            if isinstance(limit, tuple):
                limits = [total + value for total, value in zip(limits, limit)]
            yield row_of(stage, ns, values, limit)
        yield row_of("**together**", sums[0] if all_samples else None, sums[1:], tuple(limits) if probe else None)


def limit_of(stage, misses, frame_bytes, probe):
    """The least that memory allows and the most, in ns."""
    if not probe or stage == STAGES[0][0] and not frame_bytes:
        return None
    if stage == STAGES[0][0]:
        return (frame_bytes / probe["read in order"],) * 2
    if stage in FETCHING:
        return "in the first row"
    return misses * probe["third cache: overlapped"], misses * probe["memory: overlapped"]


def row_of(stage, ns, values, limit):
    def number(value, digits=1):
        if isinstance(value, tuple):
            low, high = (f"{bound:.1f}" for bound in value)
            return low if low == high else f"{low} to {high}"
        return value if isinstance(value, str) else "" if value is None else f"{value:z.{digits}f}"

    return f"| {stage} | {number(ns)} | {number(values[0], 0)} | {number(values[1], 2)} | {number(values[2], 2)} | {number(limit)} |"


if __name__ == "__main__":
    {"count": count, "samples": samples, "table": table}[sys.argv[1]](*sys.argv[2:])
