"""Lines over a few named places, as SVG: one panel below the other."""

from xml.sax.saxutils import escape

WIDTH, PANEL_HEIGHT = 900, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 40, 40
# Colours that also differ in lightness.
COLOURS = ("#08306b", "#fd8d3c", "#7a0177", "#41ab5d", "#777777", "#6baed6")


class Line:
    """A name, how it is drawn, and values by place. `along` are the places that are joined, all of them by default; they are
    not when one of them has no value."""

    def __init__(self, name, colour, points, dashes="", along=None):
        self.name, self.colour, self.points, self.dashes, self.along = name, colour, points, dashes, along


def picture(panels):
    height = PANEL_HEIGHT * len(panels) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, content in enumerate(panels):
        parts.append(f'<g transform="translate(0 {number * PANEL_HEIGHT})">{content}</g>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def panel(title, below, places, lines):
    """`places` are the labels along the bottom, in order; `below` says what they are."""
    lines = list(lines)
    top = max((value for line in lines for value in line.points.values()), default=1) or 1
    # 1, 2, 5 and their tenfolds: at most six of them below the top.
    steps = (digit * 10.0**power for power in range(-3, 12) for digit in (1, 2, 5))
    step = next(step for step in steps if top / step <= 6)
    top = step * -(-top // step)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def x(place):
        return LEFT + inner_width * (places.index(place) + 0.5) / len(places)

    def y(value):
        return TOP + inner_height * (1 - value / top)

    parts = [f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>']
    for tick in range(round(top / step) + 1):
        value = tick * step
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{LEFT + inner_width}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for place in places:
        parts.append(f'<text x="{x(place):.1f}" y="{TOP + inner_height + 18}" text-anchor="middle">{escape(place)}</text>')
    parts.append(f'<text x="{LEFT + inner_width / 2}" y="{TOP + inner_height + 34}" text-anchor="middle">{escape(below)}</text>')
    for number, line in enumerate(lines):
        known = [(x(place), y(line.points[place])) for place in places if place in line.points]
        style = f'stroke="{line.colour}" stroke-width="2" fill="none"' + (f' stroke-dasharray="{line.dashes}"' if line.dashes else "")
        along = places if line.along is None else line.along
        if all(place in line.points for place in along):
            parts.append(f'<polyline {style} points="{" ".join(f"{x(place):.1f},{y(line.points[place]):.1f}" for place in along)}"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{line.colour}"/>' for a, b in known]
        at = TOP + 6 + 18 * number
        parts.append(f'<path {style} d="M{WIDTH - RIGHT + 15} {at}h28"/>')
        parts.append(f'<circle cx="{WIDTH - RIGHT + 29}" cy="{at}" r="3.5" fill="{line.colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 50}" y="{at + 4}">{escape(line.name)}</text>')
    return "\n".join(parts)
