"""From the lines of `metrics.jsonl` to figures: curves by role, the mix of designs, and every metric in small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, TypeVar

from metaagentx.metrics import COLD_START
from metaagentx.report import plot

Record = Mapping[str, Any]
T = TypeVar("T")
FIELDS = ("step", "phase", "time")
SIGNATURES = ("single", "vote", "chain", "chain+vote", "tool", "other", "invalid")
SIGNATURE_COLORS = (0, 1, 2, 3, 4, 6, 7)
COLORS = {"designer": 5, "main": 5, "executor": 1, "sub": 1, "all": 0, "held-out": 2}
WINDOW = 9  # steps of the running mean
MOST = 500  # points of one line


def names(records: Sequence[Record]) -> list[str]:
    """Every metric's name, in order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record if name not in FIELDS))


def curve(records: Sequence[Record], name: str) -> tuple[tuple[plot.Point, float], ...]:
    """The values of one metric."""
    return tuple(((r["phase"], r["step"]), float(r[name])) for r in records if r.get(name) is not None)


def thin(rows: Sequence[T]) -> Sequence[T]:
    """At most about MOST of a long history, evenly spaced, the last one among them: a page must stay light."""
    return rows[:: -max(1, -(-len(rows) // MOST))][::-1]


def extent(records: Sequence[Record]) -> list[plot.Point]:
    """Every (phase, step) of a run."""
    return [(record["phase"], record["step"]) for record in records]


def running_mean(points: Sequence[tuple[plot.Point, float]]) -> tuple[tuple[plot.Point, float], ...]:
    """Each point's mean with those up to WINDOW - 1 before it; the cold start is kept apart."""
    smooth = []
    for i, (point, _) in enumerate(points):
        cold = point[0] == COLD_START
        window = [v for p, v in points[max(0, i - WINDOW + 1) : i + 1] if (p[0] == COLD_START) == cold]
        smooth.append((point, sum(window) / len(window)))
    return tuple(smooth)


def panels(records: Sequence[Record]) -> list[str]:
    """The curves that tell the story, as figures."""
    accuracy = [
        plot.Series(name.removeprefix("eval/accuracy").strip("/") or "all", curve(records, name), i, thin=i > 0)
        for i, name in enumerate(n for n in names(records) if n == "eval/accuracy" or n.startswith("eval/accuracy/"))
    ]
    tokens = [
        plot.Series(shown, tuple(thin(curve(records, name))), color)
        for name, shown, color in (
            ("eval/tokens_per_question", "held-out question, all agents together", 2),
            ("rollout/tokens_per_execution", "execution or rollout in training", 1),
        )
    ]
    title = "Held-out accuracy, validation questions"
    figures = [plot.lines(accuracy, title=title, percent=True, extent=extent(records))]
    for word, title in (
        ("reward", "Reward"),
        ("entropy", "Entropy, nats per token"),
        ("kl", "KL divergence to the cold start, nats per token"),
        ("errands", "Sub-tasks of a rollout"),
        ("mark", "Mark of the reports on sub-tasks"),
    ):
        figures.append(_panel(records, word, title))
    figures.append(plot.lines(tokens, title="Generated tokens", extent=extent(records)))
    loss = [plot.Series("loss", tuple(thin(curve(records, "cold_start/loss"))), 0)]
    figures.append(plot.lines(loss, title="Cold start: loss, nats per token"))
    return [f for f in figures if f]


def _panel(records: Sequence[Record], word: str, title: str) -> str:
    """All metrics with `word` as a part of their name, one line each, named by the other parts."""
    series: list[plot.Series] = []
    for name in names(records):
        parts = name.split("/")
        if word not in parts:
            continue
        rest = [p for p in parts if p not in (word, "train", "rollout", "credit", "team")]
        shown = " ".join("held-out" if p == "eval" else p for p in rest) or "all"
        color = COLORS.get(shown, len(series) % 8)
        points = curve(records, name)
        if word == "reward" and len(points) > 4 * WINDOW:
            series.append(plot.Series(shown, tuple(thin(points)), color, faint=True))
            points = running_mean(points)
        series.append(plot.Series(shown, tuple(thin(points)), color))
    if {"designer", "executor", "main"} & {s.name for s in series}:
        series = [s for s in series if s.name != "all"]
    if any(s.faint for s in series):
        title += f", mean of {WINDOW} steps"
    return plot.lines(series[:12], title=title, extent=extent(records))


def mixes(records: Sequence[Record]) -> list[str]:
    """The share of each kind of design over time: all questions first, then each kind of question."""
    kinds: dict[str, None] = {}
    for name in names(records):
        parts = name.split("/")
        if len(parts) == 3 and parts[0] == "designs":
            kinds[parts[1]] = None
    rows: dict[str, list[tuple[plot.Point, list[float]]]] = {kind: [] for kind in kinds}
    total: list[tuple[plot.Point, list[float]]] = []
    for record in records:
        present = []
        for kind in kinds:
            shares = [float(record.get(f"designs/{kind}/{s}") or 0.0) for s in SIGNATURES]
            if sum(shares) > 0:
                rows[kind].append(((record["phase"], record["step"]), shares))
                present.append(shares)
        if present:
            mean = [sum(column) / len(present) for column in zip(*present, strict=True)]
            total.append(((record["phase"], record["step"]), mean))
    everything = [("all kinds", total)] if len(kinds) > 1 and "all" not in kinds else []
    draw = partial(plot.shares, SIGNATURES, colors=SIGNATURE_COLORS, width=360, height=180, legend=False)
    return [
        draw(thin(shown), title=kind, extent=extent(records)) for kind, shown in [*everything, *rows.items()] if shown
    ]


def mix_key() -> str:
    """The legend that all mixes share."""
    return plot.key(list(zip(SIGNATURES, SIGNATURE_COLORS, strict=True)))


def phase_key(records: Sequence[Record]) -> str:
    """The legend of the shading."""
    phases = dict.fromkeys(record["phase"] for record in records if record["phase"] != "start")
    items = (f'<li><i class="phase {plot.shade(p)}"></i>{escape(p.replace("_", " "))}</li>' for p in phases)
    return f'<ul class="key">{"".join(items)}</ul>'


def small_multiples(records: Sequence[Record]) -> list[str]:
    """Every metric in a small chart of its own."""
    draw = partial(plot.lines, width=360, height=150, legend=False, extent=extent(records))
    return [
        draw([plot.Series(name, tuple(thin(curve(records, name))), 0)], title=name)
        for name in sorted(names(records))
        if not name.startswith("designs/")
    ]
