"""Records of compiled programs: kept in a file, printed as a line, written as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]
KEY = ("config", "topology", "program", "digest", "jax", "libtpu")
BEGIN, END = "<!-- table: python -m launch.aot --sweep -->", "<!-- end of table -->"


class Records:
    """The records of a JSON file; without a file, of this process."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.all: list[Record] = json.loads(path.read_text()) if path and path.exists() else []

    def find(self, key: Mapping[str, str]) -> Record | None:
        """The record of just this program."""
        return next((each for each in self.all if all(each[name] == key[name] for name in KEY)), None)

    def keep(self, record: Record) -> None:
        """Add a record, in place of what the same program of the same config was before, and save."""
        if self.path and self.path.exists():
            self.all = json.loads(self.path.read_text())  # another process may have written meanwhile
        place = [record[name] for name in KEY[:3]]
        self.all = [each for each in self.all if [each[name] for name in KEY[:3]] != place] + [record]
        self.all.sort(key=lambda each: [each[name] for name in KEY[:3]])
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.all, indent=1) + "\n")


def line(record: Record) -> str:
    """One program, for a person at a terminal."""
    name = f"{record['config']} {record['topology']} {record['program']}"
    if "refused" in record:
        return f"{name}: does not fit: {record['refused']}"
    hbm, seconds, share = record["hbm"], record["seconds"], record["share"]
    parts = ", ".join(f"{key} {hbm[key] / 1e9:.2f}" for key in hbm if key not in ("total", "chip"))
    return (
        f"{name}, {' '.join(f'{key}={value}' for key, value in (record['mesh'] | record['batch']).items())}\n"
        f"  HBM {hbm['total'] / 1e9:.2f} of {hbm['chip'] / 1e9:.0f} GB ({parts})\n"
        f"  a chip: {record['flops'] / 1e12:.1f} TFLOP, {record['bytes'] / 1e9:.1f} GB of HBM traffic, "
        f"{record['received'] / 1e9:.2f} GB received\n"
        f"  {seconds['compute']:.3f} s compute + {seconds['kernels']:.3f} s kernels + "
        f"{seconds['collectives']:.3f} s collectives\n"
        f"  model FLOPs at {100 * share['serial']:.1f} % of the peak (collectives hidden: "
        f"{100 * share['overlapped']:.1f} %); compiled in {record.get('compile_seconds', 0):.0f} s"
    )


def table(records: Records) -> str:
    """All records as Markdown, one row a program."""
    head = "config|slice|mesh|program|batch|HBM, GB|largest|TFLOP|HBM traffic, GB|received, GB|time, s|model FLOPs, %"
    rows = [head.split("|")]
    for record in records.all:
        rows.append(_row(record))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {each} |" for each in lines)


def _row(record: Record) -> list[str]:
    mesh = "x".join(str(size) for size in record["mesh"].values())
    batch = record["batch"]
    sizes = {
        "update": "{rows} rows by {micro_rows} of {length}",
        "prefill": "{rows} blocks of {length}" if record.get("attention") == "dense" else "{rows} prompts of {length}",
        "fork": "{rows} copies of {length}",
        "refill": "{rows} blocks of {length}",
        "decode": "{slots} slots of {length}",
    }
    size = sizes[record["program"]].format(**batch)
    if record["program"] == "decode" and "attention" in record:
        size += f", {record['attention']}"
    start = [record["config"], record["topology"], mesh, record["program"], size]
    if "refused" in record:
        return [*start, "does not fit", *[""] * 6]
    hbm, seconds, share = record["hbm"], record["seconds"], record["share"]
    return [
        *start,
        f"{hbm['total'] / 1e9:.1f} of {hbm['chip'] / 1e9:.0f}",
        str(record.get("largest", "")),
        f"{record['flops'] / 1e12:.4g}",
        f"{record['bytes'] / 1e9:.4g}",
        f"{record['received'] / 1e9:.3g}",
        f"{seconds['compute']:.3g} + {seconds['kernels']:.3g} + {seconds['collectives']:.3g}",
        f"{100 * share['serial']:.0f}-{100 * share['overlapped']:.0f}",
    ]


def write_table(path: Path, records: Records) -> None:
    """Put the table between the two marks of a document."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{table(records)}\n\n{END}{after}", encoding="utf-8")
