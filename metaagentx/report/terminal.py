"""The results of a run on a terminal: the final table, cross-play, and ways by kind. Plain text when piped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metaagentx.report.gain import split


def show(results: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print what `results.json` holds; parts that it lacks are left out."""
    console = terminal(stream)
    for table in (_final(results), _ways(results), _crossplay(results)):
        if table is not None:
            console.print(table)
    if results.get("crossplay"):
        gain, (first, second) = split(results["crossplay"]), results["players"]
        console.print(
            f"Training gained {100 * gain.total:+.1f} points: {100 * gain.first:+.1f} by the {first},"
            f" {100 * gain.second:+.1f} by the {second}."
        )


def terminal(stream: TextIO | None = None) -> Console:
    """A console on a terminal's own width; elsewhere plain text, wide enough that nothing wraps."""
    target = stream if stream is not None else sys.stdout
    return Console(file=target, width=None if target.isatty() else 160, highlight=False, emoji=False)


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
    return table


def _final(results: Mapping[str, Any]) -> Table | None:
    rows = results.get("table")
    if not rows:
        return None
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.get("by_kind", {})))
    table = _grid("Held-out questions", "system", "accuracy", "95 % interval", "tokens", "calls", *kinds)
    for row in rows:
        by_kind = row.get("by_kind", {})
        table.add_row(
            escape(str(row["name"])),
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['low']:.1f} - {100 * row['high']:.1f}",
            f"{row['tokens_per_question']:.1f}",
            f"{row['calls_per_question']:.2f}",
            *(f"{100 * by_kind[kind]:.1f} %" if kind in by_kind else "" for kind in kinds),
        )
    table.caption = (
        "Tokens generated and model calls for one question, of all agents together.\n"
        "Votes are as many as it takes to spend the tokens of what they are compared with."
    )
    table.caption_justify = "left"
    return table


def _crossplay(results: Mapping[str, Any]) -> Table | None:
    scores = results.get("crossplay")
    if not scores:
        return None
    first, second = results["players"]
    table = _grid("Cross-play", "", f"cold {second}", f"trained {second}")
    for lead in ("cold", "trained"):
        cells = (f"{100 * scores[f'{lead}/{rest}']:.1f} %" for rest in ("cold", "trained"))
        table.add_row(f"{lead} {first}", *cells)
    return table


def _ways(results: Mapping[str, Any]) -> Table | None:
    by_kind = results.get("ways_by_kind")
    if not by_kind:
        return None
    table = _grid("Ways by kind of question", "kind", "way", "share", "accuracy")
    table.columns[1].justify = "left"
    for kind, rows in by_kind.items():
        for i, row in enumerate(sorted(rows, key=lambda row: -row["share"])[:3]):
            right = "" if row.get("accuracy") is None else f"{100 * row['accuracy']:.0f} %"
            table.add_row(escape(kind) if i == 0 else "", escape(str(row["way"])), f"{100 * row['share']:.0f} %", right)
    return table
