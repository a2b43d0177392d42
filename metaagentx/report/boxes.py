"""Pictures that fit together: boxes with a line in at the left and out at the right, and the marks they are made of.

Put together, boxes make a larger box: one after the other, one above the other, with a line back, in a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STEP = 34.0  # room for an arrow between two steps
ROW = 12.0  # room between two boxes, one above the other


@dataclass(frozen=True, slots=True)
class Box:
    """A picture of `width` x `height` pixels; lines enter and leave at height `axis`."""

    width: float
    height: float
    axis: float
    marks: str


def chain(boxes: Sequence[Box], labels: Sequence[str] | None = None) -> Box:
    """One after the other, joined by arrows; labels[i] stands over the arrow from box i to the next."""
    names = labels or [""] * len(boxes)
    gaps = [max(STEP, 6.0 * len(name) + 18 if name else 0) for name in names[: len(boxes) - 1]]
    placed = side(boxes, gaps)
    x, parts = 0.0, [placed.marks]
    for box, gap, name in zip(boxes, gaps, names, strict=False):
        x += box.width
        parts.append(arrow(x, placed.axis, x + gap, placed.axis))
        if name:
            parts.append(label("label mid", x + gap / 2 - 2, placed.axis - 6, name))
        x += gap
    return Box(placed.width, placed.height, placed.axis, "".join(parts))


def side(boxes: Sequence[Box], gaps: Sequence[float] | None = None) -> Box:
    """One after the other on one axis."""
    axis = max(box.axis for box in boxes)
    x, parts = 0.0, []
    for box, gap in zip(boxes, [*(gaps or [0.0] * (len(boxes) - 1)), 0.0], strict=True):
        parts.append(moved(box.marks, x, axis - box.axis))
        x += box.width + gap
    return Box(x, axis + max(box.height - box.axis for box in boxes), axis, "".join(parts))


def rows(boxes: Sequence[Box], before: Sequence[str] = (), after: Sequence[str] = ()) -> Box:
    """One above the other between two points, with labels on the lines in and out."""
    left = max([24.0, *(6.1 * len(text) + 34 for text in before)])
    right = max([24.0, *(6.1 * len(text) + 30 for text in after)])
    inner = max(box.width for box in boxes)
    height = sum(box.height for box in boxes) + ROW * (len(boxes) - 1)
    axis, y, parts = height / 2, 0.0, []
    for i, box in enumerate(boxes):
        line = y + box.axis
        parts.append(moved(box.marks, left, y))
        parts.append(
            wire(f"M0 {axis:.1f}C12 {axis:.1f} 8 {line:.1f} 20 {line:.1f}H{left - 5:.1f}") + head(left, line, 1, 0)
        )
        end = left + inner
        parts.append(
            wire(
                f"M{left + box.width:.1f} {line:.1f}H{end + right - 20:.1f}C{end + right - 8:.1f} {line:.1f}"
                f" {end + right - 12:.1f} {axis:.1f} {end + right:.1f} {axis:.1f}"
            )
        )
        if i < len(before):
            parts.append(label("label", 24, line - 5, before[i]))
        if i < len(after):
            parts.append(label("label", end + 6, line - 5, after[i]))
        y += box.height + ROW
    return Box(left + inner + right, height, axis, "".join(parts))


def back(box: Box, text: str) -> Box:
    """A line below that leads from the end of the box to its start."""
    width = max(box.width, 6.1 * len(text) + 60)
    x, y = (width - box.width) / 2, box.height + 12
    wires = "".join(wire(f"M{a:.1f} {box.axis:.1f}H{b:.1f}") for a, b in ((0, x), (x + box.width, width)) if x > 0)
    caption = label("label mid", width / 2, y + 14, text)
    pad = 18.0
    ends = wire(f"M0 {box.axis:.1f}H{pad:.1f}") + wire(f"M{width + pad:.1f} {box.axis:.1f}H{width + 2 * pad:.1f}")
    loop = f'<g transform="translate({pad:.1f} 0)">{moved(box.marks, x, 0)}{wires}{caption}</g>'
    total = width + 2 * pad
    path = wire(f"M{total - 9:.1f} {box.axis:.1f}V{y - 8:.1f}q0 8 -8 8H17q-8 0 -8 -8V{box.axis + 5:.1f}")
    return Box(total, y + 18, box.axis, loop + ends + path + head(9, box.axis, 0, -1))


def framed(box: Box, title: str) -> Box:
    """A dashed frame with a title."""
    width = max(box.width, 6.2 * len(title)) + 24
    x = (width - box.width) / 2
    marks = rect("frame", 0, 0, width, box.height + 34, radius=9) + label("label", 12, 15, title)
    axis = box.axis + 24
    ends = wire(f"M0 {axis:.1f}H{x:.1f}") + wire(f"M{x + box.width:.1f} {axis:.1f}H{width:.1f}")
    return Box(width, box.height + 34, axis, marks + moved(box.marks, x, 24) + ends)


def pill(text: str) -> Box:
    width = 6.9 * len(text) + 22
    return Box(width, 26, 13, rect("pill", 0, 0, width, 26, radius=13) + label("votes mid", width / 2, 17, text))


def endpoint(text: str) -> Box:
    width = 6.6 * len(text) + 18
    return Box(width, 24, 12, rect("end", 0, 0, width, 24, radius=12) + label("soft mid", width / 2, 16, text))


def detour(x0: float, y0: float, x1: float, y1: float, level: float, text: str) -> str:
    """A line from (x0, y0) to (x1, y1) by way of the height `level`, above or below both."""
    up = -1 if level < y0 else 1
    side = 1 if x1 >= x0 else -1
    path = (
        f"M{x0:.1f} {y0:.1f}V{level - 6 * up:.1f}Q{x0:.1f} {level:.1f} {x0 + 6 * side:.1f} {level:.1f}"
        f"H{x1 - 6 * side:.1f}Q{x1:.1f} {level:.1f} {x1:.1f} {level - 6 * up:.1f}V{y1 + 5 * up:.1f}"
    )
    return wire(path) + head(x1, y1, 0, -up) + label("label mid", (x0 + x1) / 2, level + (-5 if up < 0 else 13), text)


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return wire(f"M{x0:.1f} {y0:.1f}L{x1 - 5:.1f} {y1:.1f}") + head(x1, y1, 1, 0)


def head(x: float, y: float, dx: int, dy: int) -> str:
    """An arrow's head with its tip at (x, y)."""
    points = [(x, y), (x - 7 * dx - 4 * dy, y - 7 * dy - 4 * dx), (x - 7 * dx + 4 * dy, y - 7 * dy + 4 * dx)]
    return f'<polygon class="head" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def wire(path: str) -> str:
    return f'<path class="wire" d="{path}"/>'


def rect(kind: str, x: float, y: float, width: float, height: float, *, radius: float = 7) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>'


def label(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>' if text else ""


def moved(marks: str, x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">{marks}</g>' if x or y else marks


def clip(text: str, limit: int) -> str:
    """At most `limit` characters on one line, without control characters: SVG may hold none."""
    line = " ".join("".join(c if c.isprintable() else "\ufffd" for c in word) for word in text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
