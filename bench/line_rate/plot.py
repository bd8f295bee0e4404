"""A picture of what was found, as SVG: one panel a backend, rate by frame size."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))
import svg as drawing  # noqa: E402, beside this folder

BARE, LIMIT, OWN, PEER = "#777777", "#bbbbbb", ("#08306b", "#2171b5", "#6baed6", "#9ecae1"), ("#a63603", "#fd8d3c", "#7a0177", "#41ab5d")


def svg(found):
    sizes = list(dict.fromkeys(one.size for one in found))
    backends = list(dict.fromkeys(one.receiver.split("-", 1)[1] for one in found if one.receiver.startswith(("bare-", "flowscope-"))))
    # A peer is measured at some sizes only: points that are not neighbours are not joined, and the mix is nobody's neighbour.
    plain = [size for size in sizes if size != "imix"]
    return drawing.picture([
        drawing.panel(
            f"{backend}: M packets/s without loss",
            "bytes of a frame, FCS included",
            sizes,
            (drawing.Line(name, colour, points, dashes, plain) for name, colour, dashes, points in lines_of(found, backend)),
        )
        for backend in backends or [""]
    ])


def lines_of(found, backend):
    """(name, colour, dashes, points by size), the limits first."""
    lines = {}
    for one in found:
        own = one.receiver in (f"bare-{backend}", f"flowscope-{backend}")
        other = one.receiver.startswith(("bare-", "flowscope-"))
        # What is dropped in the driver is far above the rest, and has no place in AF_PACKET's picture.
        if own or not other and not (one.receiver == "xdp-drop" and backend != "af-xdp"):
            lines.setdefault((one.receiver, one.flows), {})[one.size] = one.rate / 1e6
    owns, peers = iter(OWN * 9), iter(PEER * 9)
    for (name, flows), points in sorted(lines.items(), key=lambda line: rank(line[0])):
        if name == "xdp-drop":
            yield "XDP_DROP", LIMIT, "2 3", points
        elif name.startswith("bare-"):
            yield f"bare {backend}", BARE, "6 3", points
        elif name.startswith("flowscope-"):
            yield f"flowscope, {flows} flows", next(owns), "", points
        else:
            yield f"{name}, {flows} flows", next(peers), "1 2", points


def rank(line):
    name, flows = line
    kind = 0 if name == "xdp-drop" else 1 if name.startswith("bare-") else 2 if name.startswith("flowscope-") else 3
    return kind, name if kind == 3 else "", flows
