"""A picture of what was found, as SVG: one panel a backend, rate by frame size."""

from xml.sax.saxutils import escape

WIDTH, PANEL_HEIGHT = 900, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 40, 40
# Colours that also differ in lightness.
BARE, LIMIT, OWN, PEER = "#777777", "#bbbbbb", ("#08306b", "#2171b5", "#6baed6", "#9ecae1"), ("#a63603", "#fd8d3c", "#7a0177", "#41ab5d")


def svg(found):
    sizes = list(dict.fromkeys(one.size for one in found))
    backends = list(dict.fromkeys(one.receiver.split("-", 1)[1] for one in found if one.receiver.startswith(("bare-", "flowscope-"))))
    panels = backends or [""]
    height = PANEL_HEIGHT * len(panels) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, backend in enumerate(panels):
        parts.append(f'<g transform="translate(0 {number * PANEL_HEIGHT})">{panel(found, sizes, backend)}</g>')
    parts.append("</svg>\n")
    return "\n".join(parts)


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


def panel(found, sizes, backend):
    lines = list(lines_of(found, backend))
    top = max((value for *_, points in lines for value in points.values()), default=1) or 1
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if top / step <= 6)
    top = step * -(-top // step)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def x(size):
        return LEFT + inner_width * (sizes.index(size) + 0.5) / len(sizes)

    def y(value):
        return TOP + inner_height * (1 - value / top)

    parts = [f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(backend)}: M packets/s without loss</text>']
    for tick in range(round(top / step) + 1):
        value = tick * step
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{LEFT + inner_width}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for size in sizes:
        parts.append(f'<text x="{x(size):.1f}" y="{TOP + inner_height + 18}" text-anchor="middle">{escape(size)}</text>')
    parts.append(
        f'<text x="{LEFT + inner_width / 2}" y="{TOP + inner_height + 34}" text-anchor="middle">bytes of a frame, FCS included</text>'
    )
    for number, (name, colour, dashes, points) in enumerate(lines):
        known = [(x(size), y(points[size])) for size in sizes if size in points]
        style = f'stroke="{colour}" stroke-width="2" fill="none"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
        # A peer is measured at some sizes only: points that are not neighbours are not joined, and the mix is nobody's neighbour.
        plain = [size for size in sizes if size != "imix"]
        if all(size in points for size in plain):
            parts.append(f'<polyline {style} points="{" ".join(f"{x(size):.1f},{y(points[size]):.1f}" for size in plain)}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in known]
        at = TOP + 6 + 18 * number
        parts.append(f'<path {style} d="M{WIDTH - RIGHT + 15} {at}h28"/>')
        parts.append(f'<circle cx="{WIDTH - RIGHT + 29}" cy="{at}" r="3.5" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 50}" y="{at + 4}">{escape(name)}</text>')
    return "\n".join(parts)
