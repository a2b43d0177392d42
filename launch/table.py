"""The table of a sweep: for each group of jobs and each number in their results.json, mean and 95 % interval."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaagentx.report.statistics import mean_interval

Summary = dict[str, dict[str, dict[str, Any]]]  # group -> metric -> {"values", "mean", "low", "high"}


def groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The group of each job: its own "group", or those of its flags that are not the same in all jobs.

    Seeds do not count, nor do paths to other jobs, which follow the seed.
    """
    told = [
        {
            key: str(value)
            for key, value in row.items()
            if key not in ("name", "group", "depends_on")
            and key.split(".")[-1] != "seed"
            and "{workdir}" not in str(value)
        }
        for row in rows
    ]
    same = set.intersection(*(set(each.items()) for each in told)) if told else set()
    labels = [
        " ".join(f"{k.removeprefix('config.')}={v}" for k, v in sorted(set(each.items()) - same)) or "all"
        for each in told
    ]
    return [str(row.get("group", label)) for row, label in zip(rows, labels, strict=True)]


def numbers(results: Any, prefix: str = "") -> dict[str, float]:
    """The numbers in nested dicts, by dotted key. Lists, texts and truth values are no metrics."""
    if isinstance(results, dict):
        return {k: v for key, each in results.items() for k, v in numbers(each, f"{prefix}.{key}".lstrip(".")).items()}
    if isinstance(results, (int, float)) and not isinstance(results, bool):
        return {prefix: float(results)}
    return {}


def summarize(rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> Summary:
    """`files[i]` holds the results of job `rows[i]`; jobs without results yet are left out."""
    values: dict[str, dict[str, list[float]]] = {}
    for group, file in zip(groups(rows), files, strict=True):
        if file.exists():
            results = json.loads(file.read_text())
            found = {key: value for key, value in results.items() if key not in ("config", "seed")}  # what went in
            for metric, value in numbers(found).items():
                values.setdefault(group, {}).setdefault(metric, []).append(value)
    return {
        group: {
            metric: {"mean": found.value, "low": _finite(found.low), "high": _finite(found.high), "values": each}
            for metric, each in metrics.items()
            for found in (mean_interval(each),)
        }
        for group, metrics in values.items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON knows no NaN


def render(summary: Summary, metrics: Sequence[str] = ()) -> str:
    """A Markdown table; `metrics` are its columns, if empty all numbers at the top level of the results."""
    found = dict.fromkeys(metric for each in summary.values() for metric in each)
    columns = list(metrics) or [metric for metric in found if "." not in metric]
    rows = [["", "n", *columns]]
    for group, each in summary.items():
        n = max(len(each[metric]["values"]) for metric in each)
        rows.append([group, str(n), *(_cell(each.get(column)) for column in columns)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["mean"] is None:
        return "–"
    if cell["low"] is None:
        return f"{cell['mean']:.4g}"
    return f"{cell['mean']:.4g} ± {cell['high'] - cell['mean']:.2g}"
