"""From the lines of `metrics.jsonl` to figures: curves by role, the mix of designs, and every metric in small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaagentx.metrics import COLD_START
from metaagentx.report import plot

Record = Mapping[str, Any]
FIELDS = ("step", "phase", "time")
SIGNATURES = ("single", "vote", "chain", "chain+vote", "tool", "other", "invalid")
SIGNATURE_COLORS = (0, 1, 2, 3, 4, 6, 7)
COLORS = {"designer": 5, "executor": 1, "all": 0, "held-out": 2}
WINDOW = 9  # steps of the running mean


def names(records: Sequence[Record]) -> list[str]:
    """Every metric's name, in order of first appearance."""
    return list(dict.fromkeys(name for record in records for name in record if name not in FIELDS))


def curve(records: Sequence[Record], name: str) -> tuple[tuple[plot.Point, float], ...]:
    """The values of one metric."""
    return tuple(
        ((record["phase"], record["step"]), float(record[name])) for record in records if record.get(name) is not None
    )


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
        plot.Series(name.removeprefix("eval/accuracy").strip("/") or "all", curve(records, name), i, dashed=i > 0)
        for i, name in enumerate(sorted(n for n in names(records) if n == "eval/accuracy" or n.startswith("eval/accuracy/")))
    ]
    figures = [plot.lines(accuracy, title="Held-out accuracy", percent=True)]
    for word, title in (
        ("reward", f"Reward (mean of {WINDOW} steps)"),
        ("entropy", "Entropy, nats per token"),
        ("tokens_per_question", "Generated tokens per question"),
        ("calls_per_question", "Model calls per question"),
    ):
        figures.append(_panel(records, word, title))
    return [f for f in figures if f]


def _panel(records: Sequence[Record], word: str, title: str) -> str:
    """All metrics with `word` as a part of their name, one line each, named by the other parts."""
    series: list[plot.Series] = []
    for name in names(records):
        parts = name.split("/")
        if word not in parts:
            continue
        rest = [p for p in parts if p not in (word, "train", "rollout", "learn", "update")]
        shown = " ".join("held-out" if p == "eval" else p for p in rest) or "all"
        color = COLORS.get(shown, len(series) % 8)
        points = curve(records, name)
        if word == "reward" and len(points) > 4 * WINDOW:
            series.append(plot.Series(shown, points, color, faint=True))
            points = running_mean(points)
        series.append(plot.Series(shown, points, color))
    return plot.lines(series[:12], title=title)


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
    return [
        plot.shares(SIGNATURES, shown, title=kind, colors=SIGNATURE_COLORS, legend=False)
        for kind, shown in [*everything, *rows.items()]
        if shown
    ]


def mix_key() -> str:
    """The legend that all mixes share."""
    return plot.key(list(zip(SIGNATURES, SIGNATURE_COLORS, strict=True)))


def small_multiples(records: Sequence[Record]) -> list[str]:
    """Every metric in a small chart of its own."""
    return [
        plot.lines([plot.Series(name, curve(records, name), 0)], title=name, width=360, height=150, legend=False)
        for name in sorted(names(records))
        if not name.startswith("designs/")
    ]
