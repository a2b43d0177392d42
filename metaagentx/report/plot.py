"""Two kinds of chart as inline SVG: lines over a run, and a stacked share over a run, with the phases shaded.

The horizontal axis is a `Timeline`: the cold start has a strip of its own at the left, with its own count of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from metaagentx.metrics import COLD_START

Point = tuple[str, int]  # (phase, step)
SHADES = {COLD_START: "cold", "designer": "lead", "main": "lead", "joint": "joint", "none": "joint", "start": "joint"}


def shade(phase: str) -> str:
    """The class of a phase's shading: roles that others follow have their own."""
    return SHADES.get(phase, "follow")


LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 22.0, 26.0  # margins, in pixels of the drawing
GAP = 26.0  # between the cold start's strip and the rest


@dataclass(frozen=True, slots=True)
class Series:
    """One named line. `color` is the number of a colour of the page, 0 to 7."""

    name: str
    points: tuple[tuple[Point, float], ...]
    color: int
    thin: bool = False
    faint: bool = False  # the noisy line behind a running mean; not in the legend


class Timeline:
    """Maps (phase, step) to pixels."""

    def __init__(self, points: Sequence[Point], width: float) -> None:
        cold = sorted({step for phase, step in points if phase == COLD_START})
        warm = sorted({(step, phase) for phase, step in points if phase != COLD_START})
        inner = width - LEFT - RIGHT
        strip = inner if not warm else (0.2 * inner if cold else 0.0)
        self._segments: dict[bool, tuple[float, float, int, int]] = {}
        if cold:
            self._segments[True] = (LEFT, LEFT + strip, cold[0], cold[-1])
        if warm:
            start = LEFT + strip + (GAP if cold else 0.0)
            self._segments[False] = (start, LEFT + inner, warm[0][0], warm[-1][0])
        self._warm = warm

    def x(self, point: Point) -> float:
        x0, x1, first, last = self._segments[point[0] == COLD_START]
        return x0 if first == last else x0 + (x1 - x0) * (point[1] - first) / (last - first)

    def phases(self) -> list[tuple[str, float, float]]:
        """(phase, left, right) of every stretch of one phase, in order."""
        spans: list[tuple[str, float, float]] = []
        if True in self._segments:
            spans.append((COLD_START, *self._segments[True][:2]))
        for step, phase in self._warm:
            x = self.x((phase, step))
            if spans and spans[-1][0] == phase:
                spans[-1] = (phase, spans[-1][1], x)
            else:
                left = spans[-1][2] if spans and spans[-1][0] != COLD_START else x
                spans.append((phase, left, x))
        return [span for span in spans if span[2] > span[1]] or spans

    def ticks(self) -> list[tuple[float, str]]:
        """(x, label): the ends of the cold start, round steps of the rest."""
        marks = []
        for cold, (x0, x1, first, last) in self._segments.items():
            steps = (first, last) if cold else _round_ticks(first, last, max(2, int((x1 - x0) / 70)))
            for step in dict.fromkeys(int(s) for s in steps):
                marks.append((self.x((COLD_START if cold else "", step)), f"{step:,}"))
        return marks


def stretches(points: Sequence[tuple[Point, float]]) -> list[list[tuple[Point, float]]]:
    """A series cut where it is silent: after the cold start, and over gaps far longer than its usual one.

    What is measured only while a role trains is not drawn through the phases in which the role is frozen.
    """
    parts: list[list[tuple[Point, float]]] = []
    for cold in (True, False):
        part = [p for p in points if (p[0][0] == COLD_START) == cold]
        gaps = sorted(after[0][1] - before[0][1] for before, after in pairwise(part))
        for i, point in enumerate(part):
            if i == 0 or point[0][1] - part[i - 1][0][1] > 3 * max(1, gaps[len(gaps) // 2]):
                parts.append([])
            parts[-1].append(point)
    return parts


def _span(shown: Sequence[Point], extent: Sequence[Point]) -> list[Point]:
    """The points that a chart's axis must hold: the extent, but a cold start only where the chart shows one."""
    cold, warm = (any((phase == COLD_START) == c for phase, _ in shown) for c in (True, False))
    return [*shown, *(p for p in extent if (cold if p[0] == COLD_START else warm))]


def _round_ticks(low: float, high: float, count: int) -> list[float]:
    """At most about `count` round numbers within [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [first * step + i * step for i in range(math.floor(high / step + 1e-9) - first + 1)]


def label(value: float, percent: bool) -> str:
    """A tick's text, as short as it can be."""
    if percent:
        return f"{100 * value:.0f} %"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 0.001 else f"{value:.3g}"


def _frame(timeline: Timeline, ticks: Sequence[tuple[float, str]], width: float, height: float, title: str) -> str:
    """Shaded phases, grid, both axes' labels. `ticks` are (y pixel, label)."""
    bottom = height - BOTTOM
    parts = []
    for phase, left, right in timeline.phases():
        parts.append(
            f'<rect class="phase {shade(phase)}" x="{left:.1f}" y="{TOP}" width="{max(right - left, 1):.1f}"'
            f' height="{bottom - TOP:.1f}"><title>{escape(phase.replace("_", " "))}</title></rect>'
        )
        name = phase.replace("_", " ")
        if right - left > 6.6 * len(name) + 6:
            parts.append(f'<text class="phasename" x="{(left + right) / 2:.1f}" y="{TOP - 7}">{escape(name)}</text>')
    for y, text in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="ytick" x="{LEFT - 7}" y="{y + 3.5:.1f}">{escape(text)}</text>')
    for x, text in timeline.ticks():
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 4:.1f}"/>')
        parts.append(f'<text class="xtick" x="{x:.1f}" y="{bottom + 17:.1f}">{text}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
    body = "".join(parts)
    return f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">{body}'


def lines(
    series: Sequence[Series],
    *,
    title: str,
    width: float = 560,
    height: float = 250,
    percent: bool = False,
    legend: bool = True,
    extent: Sequence[Point] = (),
) -> str:
    """A line chart as a <figure>. Empty if no series holds a point.

    extent: all points of the run, so that charts share their horizontal axis whichever steps they show.
    """
    shown = [s for s in series if s.points]
    if not shown:
        return ""
    values = [value for s in shown for _, value in s.points]
    low, high = min(values), max(values)
    if percent or 0 <= low < 0.5 * high:
        low = 0.0
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if high else (0.0, 1.0)
    low, high = low - (0.08 * (high - low) if low else 0), high + 0.04 * (high - low)
    if percent:
        high = min(high, 1.02)
    timeline = Timeline(_span([point for s in shown for point, _ in s.points], extent), width)

    def y(value: float) -> float:
        return height - BOTTOM - (height - BOTTOM - TOP) * (value - low) / (high - low)

    ticks = [(y(v), label(v, percent)) for v in _round_ticks(low, high, 5)]
    parts = [_frame(timeline, ticks, width, height, title)]
    for s in shown:
        style = f'class="line c{s.color % 8}{" faint" if s.faint else ""}{" thin" if s.thin else ""}"'
        for stretch in stretches(s.points):
            points = [(timeline.x(p), y(v)) for p, v in stretch]
            if len(points) == 1:
                parts.append(
                    f'<circle class="dot c{s.color % 8}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5"/>'
                )
            else:
                path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
                parts.append(f'<polyline {style} points="{path}"/>')
    parts.append("</svg>")
    entries = [(s.name, s.color) for s in shown if not s.faint]
    return figure(title, "".join(parts), entries if legend and len(entries) > 1 else [])


def shares(
    names: Sequence[str],
    rows: Sequence[tuple[Point, Sequence[float]]],
    *,
    title: str,
    colors: Sequence[int],
    width: float = 560,
    height: float = 210,
    legend: bool = True,
    extent: Sequence[Point] = (),
) -> str:
    """A stacked area chart of shares that add up to one. rows: (point, one share a name), in order of time."""
    if not rows:
        return ""
    timeline = Timeline(_span([point for point, _ in rows], extent), width)
    bottom, room = height - BOTTOM, height - BOTTOM - TOP
    ticks = [(bottom - room * v, label(v, True)) for v in (0, 0.5, 1)]
    parts = [_frame(timeline, ticks, width, height, title)]
    for cold in (True, False):
        part = [row for row in rows if (row[0][0] == COLD_START) == cold]
        below = [0.0] * len(part)
        for i, color in enumerate(colors):
            above = [b + row[1][i] / (sum(row[1]) or 1.0) for b, row in zip(below, part, strict=True)]
            if any(a - b > 0 for a, b in zip(above, below, strict=True)):
                xs = [timeline.x(row[0]) for row in part]
                xs = xs if len(xs) > 1 else [xs[0], xs[0] + 4]
                tops = above if len(above) > 1 else above * 2
                floor = below if len(below) > 1 else below * 2
                edge = [*zip(xs, tops, strict=True), *reversed([*zip(xs, floor, strict=True)])]
                path = " ".join(f"{x:.1f},{bottom - room * v:.1f}" for x, v in edge)
                parts.append(f'<polygon class="area c{color % 8}" points="{path}"/>')
            below = above
    for (_, _, left), (_, right, _) in pairwise(timeline.phases()):
        x = (left + right) / 2
        parts.append(f'<line class="border" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
    parts.append("</svg>")
    return figure(title, "".join(parts), list(zip(names, colors, strict=True)) if legend else [])


def key(entries: Sequence[tuple[str, int]]) -> str:
    """A legend."""
    items = "".join(f'<li><i class="c{color % 8}"></i>{escape(name)}</li>' for name, color in entries)
    return f'<ul class="key">{items}</ul>' if entries else ""


def figure(title: str, picture: str, entries: Sequence[tuple[str, int]]) -> str:
    """A picture under its title, with a legend."""
    return f"<figure><figcaption>{escape(title)}{key(entries)}</figcaption>{picture}</figure>"
