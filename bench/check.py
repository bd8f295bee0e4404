#!/usr/bin/env python3
"""Compares a sensor's flow records with what the generator knows of a workload.

    bench/check.py bench/data/A records.jsonl

Records with one key are added up, so interim records and evictions do no harm; packets and bytes of
both sides must then equal those of NAME.flows.tsv for every flow, with the initiator as the source.
Prints what differs and exits with 1, or prints one line and exits with 0.
"""

import json
import sys

SHOWN_MAX = 10
COUNTS = ("packets_initiator", "packets_responder", "bytes_initiator", "bytes_responder")


def read_truth(path):
    with open(path, encoding="ascii") as lines:
        names = next(lines).rstrip("\n").split("\t")
        at = [names.index(name) for name in COUNTS]
        flows = {}
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            flows[tuple(fields[:5])] = [int(fields[i]) for i in at]
    return flows


def read_records(path):
    flows, records, reasons = {}, 0, {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            records += 1
            reason = record.get("reason")
            reasons[reason] = reasons.get(reason, 0) + 1
            key = tuple(
                str(record[name]) for name in ("src_ip", "src_port", "dst_ip", "dst_port", "proto")
            )
            counts = [record[name] for name in COUNTS]
            sums = flows.get(key)
            flows[key] = counts if sums is None else [a + b for a, b in zip(sums, counts)]
    return flows, records, reasons


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    prefix, path = sys.argv[1:]
    truth = read_truth(prefix + ".flows.tsv")
    found, records, reasons = read_records(path)
    differences = [
        f"{' '.join(key)}: {found.get(key, 'no record')}, not {truth.get(key, 'a flow')}"
        for key in {**truth, **found}
        if truth.get(key) != found.get(key)
    ]
    for line in differences[:SHOWN_MAX]:
        print(line)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=str))
    verdict = f"{len(differences)} of them WRONG" if differences else "all as generated"
    print(f"{prefix}: {records} records ({reasons}), {len(truth)} flows, {verdict}")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
