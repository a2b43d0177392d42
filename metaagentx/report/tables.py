"""The results of a run as HTML: the final table, cross-play of cold and trained roles, and ways by kind of question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from metaagentx.report.gain import split

Row = Mapping[str, Any]


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f} points".replace("-", "−")


def final(table: Sequence[Row]) -> str:
    """Every system's accuracy with its interval, drawn and in figures, its price, and its accuracy by kind."""
    kinds = list(dict.fromkeys(kind for row in table for kind in row.get("by_kind", {})))
    best = max(row["accuracy"] for row in table)
    top = max([row["high"] for row in table] + [0.1])
    head = ["system", "accuracy", "95 % interval", "", "tokens / question", "calls / question", *kinds]
    body = []
    for row in table:
        cells = [
            escape(str(row["name"])),
            percent(row["accuracy"]),
            f"{100 * row['low']:.1f} – {100 * row['high']:.1f}",
            _whisker(row["low"] / top, row["accuracy"] / top, row["high"] / top),
            f"{row['tokens_per_question']:.1f}",
            f"{row['calls_per_question']:.2f}",
            *(percent(row["by_kind"][kind]) if kind in row.get("by_kind", {}) else "" for kind in kinds),
        ]
        mark = ' class="best"' if row["accuracy"] == best else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table class="wide"><tr>{header}</tr>{"".join(body)}</table></div>'


def _whisker(low: float, mid: float, high: float) -> str:
    """An interval on a rail from 0 to the largest bound of the table; arguments in [0, 1]."""
    a, b, c = (4 + 122 * max(0.0, min(1.0, v)) for v in (low, mid, high))
    return (
        '<svg class="whisker" width="130" height="16" aria-hidden="true">'
        '<line class="rail" x1="4" x2="126" y1="8" y2="8"/>'
        f'<line x1="{a:.1f}" x2="{c:.1f}" y1="8" y2="8"/><circle cx="{b:.1f}" cy="8" r="4"/></svg>'
    )


def crossplay(scores: Mapping[str, float], players: Sequence[str]) -> str:
    """The four pairs of cold and trained players (two, as a reader calls them), and whose the gain is."""
    gain, (first, second) = split(scores), map(escape, players)
    rows = []
    for lead in ("cold", "trained"):
        pair = [float(scores[f"{lead}/{rest}"]) for rest in ("cold", "trained")]
        cells = "".join(
            f'<td class="cell" style="background:color-mix(in srgb,var(--c2) {70 * score:.0f}%,transparent)">'
            f"{percent(score)}</td>"
            for score in pair
        )
        rows.append(f'<tr><th class="row">{lead} {first}</th>{cells}</tr>')
    table = f"<table><tr><th></th><th>cold {second}</th><th>trained {second}</th></tr>{''.join(rows)}</table>"
    text = (
        f"<p>Training gained <b>{points(gain.total)}</b>: "
        f"<b>{points(gain.first)}</b> by the {first}, <b>{points(gain.second)}</b> by the {second}"
    )
    bar = ""
    if gain.first >= 0 and gain.second >= 0 and gain.total > 0:
        share = gain.first / gain.total
        text += f" ({100 * share:.0f} % and {100 - round(100 * share)} %)"
        bar = (
            f'<div class="bar"><i class="bg5" style="width:{100 * share:.2f}%"></i>'
            f'<i class="bg1" style="width:{100 - 100 * share:.2f}%"></i></div>'
            f'<ul class="key"><li><i class="c5"></i>{first}</li><li><i class="c1"></i>{second}</li></ul>'
        )
    note = '<p class="note">Each one’s part is its mean effect with the other cold and with the other trained.</p>'
    return f'<div class="cross">{table}<div class="split">{text}.</p>{bar}{note}</div></div>'


def ways_by_kind(ways: Mapping[str, Sequence[Row]], *, most: int = 6) -> str:
    """In which ways questions of each kind are answered: share of questions, and accuracy."""
    parts = []
    for kind, rows in ways.items():
        ordered = sorted(rows, key=lambda row: -row["share"])
        items = "".join(
            f'<li><span class="name" title="{escape(str(row["way"]))}">{escape(str(row["way"]))}</span>'
            f'<span class="track"><i style="width:{100 * min(1.0, max(0.0, row["share"])):.1f}%"></i></span>'
            f"<em>{_share(row['share'])}</em><em>{_right(row.get('accuracy'))}</em></li>"
            for row in ordered[:most]
        )
        rest = sum(row["share"] for row in ordered[most:])
        more = f'<p class="note">{len(ordered) - most} more, {percent(rest)} together</p>' if rest else ""
        parts.append(f"<section><h3>{escape(kind)}</h3><ol>{items}</ol>{more}</section>")
    return f'<div class="designs">{"".join(parts)}</div>'


def _share(share: float) -> str:
    return "&lt; 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _right(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.0f} % right"
