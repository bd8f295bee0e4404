#!/usr/bin/env python3
"""Bars of what bench/peers.sh measured: peers.csv on standard input, SVG on standard output.

Medians, M packets/s, one panel a workload; what only reads is grey."""

import csv
import statistics
import sys
from xml.sax.saxutils import escape

import svg

ROW = 20
ONLY_READS = "tcpdump"


def bars(title, values):
    """`values` by tool, the fastest first."""
    left, right = 190, 90
    top = max(values.values())
    parts = [f'<text x="{left}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>']
    for row, (tool, value) in enumerate(values.items()):
        y = 34 + row * ROW
        length = (svg.WIDTH - left - right) * value / top
        colour = svg.COLOURS[0 if tool in ("flowscope", "reassembling") else 4 if tool == ONLY_READS else 1]
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(tool)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{max(length, 1):.1f}" height="{ROW - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{left + max(length, 1) + 6:.1f}" y="{y + 13}">{value:.2f}</text>')
    return "\n".join(parts), 44 + len(values) * ROW


def main():
    measured = {}
    for row in csv.DictReader(sys.stdin):
        measured.setdefault(row["workload"], {}).setdefault(row["tool"], []).append(float(row["mpps"]))
    panels, height = [], 0
    for workload, tools in sorted(measured.items()):
        medians = {tool: statistics.median(values) for tool, values in tools.items()}
        fastest = dict(sorted(medians.items(), key=lambda one: -one[1]))
        content, taken = bars(f"{workload}: M packets/s, one core", fastest)
        panels.append(f'<g transform="translate(0 {height})">{content}</g>')
        height += taken
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{svg.WIDTH}" height="{height + 10}" viewBox="0 0 {svg.WIDTH} {height + 10}"'
        f' font-family="sans-serif" font-size="12">\n<rect width="{svg.WIDTH}" height="{height + 10}" fill="white"/>'
    )
    print("\n".join(panels))
    print("</svg>")


if __name__ == "__main__":
    main()
