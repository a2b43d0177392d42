"""What the benchmarks found, as tables in Markdown.

python -m benchmarks.table             # prints them
python -m benchmarks.table --write     # puts them into docs/benchmarks.md, between its markers
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.timing import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- made by `python -m benchmarks.table --write` -->", "<!-- end -->"


def records() -> dict[str, list[dict[str, Any]]]:
    """The records of each device that were written by `timing.Bench`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "benchmark" in record:
            found.setdefault(path.parent.name, []).append(record)
    return found


def render(device: str, found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The tables of one device."""
    found = list(found)
    yield f"### {device}\n"
    yield "| | what | median | range | gate | goal | |\n| --- | --- | --- | --- | --- | --- | --- |"
    for record in found:
        for key, ratio in record["ratios"].items():
            low, high = ratio["range"]
            mark = "goal" if ratio["goal_reached"] else "gate" if ratio["reached"] else "**below**"
            bounds = f"{ratio['gate']:g} | {ratio['goal']:g}"
            yield f"| {key} | {ratio['what']} | {ratio['ratio']:.3g} | {low:.3g} – {high:.3g} | {bounds} | {mark} |"
    for record in found:
        yield f"\n`{record['command']}`: {about(record)}\n"
        yield "| case | contestant | median | quartiles | |\n| --- | --- | --- | --- | --- |"
        for case, contestants in record["results"].items():
            for name, result in contestants.items():
                low, high = result["quartiles"]
                yield f"| {case} | {name} | {result['median']:.4g} | {low:.4g} – {high:.4g} | {result['unit']} |"


def about(record: Mapping[str, Any]) -> str:
    """Where and when, in a line."""
    device, cores = record["device"], record["pinned"]["cores"]
    where = f"{len(cores)} core{'s' * (len(cores) != 1)} of {device['processor']}" if cores else device["kind"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    left_out = "".join(f"; without {name}" for name in record["skipped"])
    load = record["load_average"]["before"][0]
    code = f" of {record['commit'][:9]}" if record.get("commit") else ""
    return f"{record['date'][:10]}{code}, {where}, {record['clock']} time, load {load:.1f}; {versions}{left_out}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    given = parser.parse_args()
    text = "\n".join(line for device, found in records().items() for line in render(device, found))
    if not given.write:
        print(text)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
