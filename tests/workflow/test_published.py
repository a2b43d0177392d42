"""Scripts as designers write them, each with what it means or where and why it is refused.

A file of `published/` holds a script (in `published/responses/`, a whole response) and below it what is expected: a
line `=> design` and its short form, in which an ellipsis (…) stands for any text, or `=> refused` and kind, line:column
and words of the message. `=> remarks` lists line:column and words of all remarks in order; without it there are none.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from metaagentx.workflow.ir import Design, Diagnosis, Limits, Refusal
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.script import parse_script
from metaagentx.workflow.short import parse_short, print_short

ROOT = Path(__file__).parent / "published"
NAMES = sorted(path.relative_to(ROOT).as_posix().removesuffix(".txt") for path in ROOT.rglob("*.txt"))
TOOLS = frozenset({"python_execute", "execute_code", "google-search", "search", "fetch_data", "calculator"})
LIMITS = Limits()


def load(name: str) -> tuple[str, dict[str, list[str]]]:
    """What was written, and the lines that are expected, by heading."""
    written, *expected = re.split(r"^=> (\w+)\n", (ROOT / f"{name}.txt").read_text(encoding="utf-8"), flags=re.M)
    return written, dict(zip(expected[::2], (part.splitlines() for part in expected[1::2]), strict=True))


def read(name: str, written: str) -> Design | Diagnosis:
    if name.startswith("responses/"):
        return parse_response(written, limits=LIMITS, tools=TOOLS, palette={})
    return parse_script(written, LIMITS, TOOLS)


def differences(expected: Any, found: Any, where: str = "design") -> list[str]:
    """Where `found` is not what is expected; an ellipsis in an expected text stands for any text."""
    if isinstance(expected, str) and isinstance(found, str):
        pattern = ".*".join(map(re.escape, expected.split("…")))
        return [] if re.fullmatch(pattern, found, re.DOTALL) else [f"{where}: {found!r}, not {expected!r}"]
    if type(expected) is type(found) and is_dataclass(expected):
        parts = [
            (f"{where}.{each.name}", getattr(expected, each.name), getattr(found, each.name))
            for each in fields(expected)
        ]
    elif isinstance(expected, tuple) and isinstance(found, tuple) and len(expected) == len(found):
        parts = [(f"{where}[{index}]", *pair) for index, pair in enumerate(zip(expected, found, strict=True))]
    else:
        return [] if expected == found else [f"{where}: {found!r}, not {expected!r}"]
    return [line for part, left, right in parts for line in differences(left, right, part)]


@pytest.mark.parametrize("name", [name for name in NAMES if "design" in load(name)[1]])
def test_published_script_means_its_design(name: str) -> None:
    written, expected = load(name)
    design = read(name, written)
    assert isinstance(design, Design), design
    wanted = parse_short(" ".join(expected["design"]), palette={}, limits=LIMITS, tools=TOOLS)
    assert isinstance(wanted, Design), wanted
    assert not differences(wanted.workflow, design.workflow)

    remarks = expected.get("remarks", [])
    assert [f"{remark.line}:{remark.column}" for remark in design.remarks] == [line.split()[0] for line in remarks]
    for line, remark in zip(remarks, design.remarks, strict=True):
        assert line.split(" ", 1)[1] in remark.message

    again = parse_short(print_short(design.workflow), palette={}, limits=LIMITS, tools=TOOLS)
    assert isinstance(again, Design)
    assert again.workflow == design.workflow


@pytest.mark.parametrize("name", [name for name in NAMES if "refused" in load(name)[1]])
def test_published_script_is_refused_where_it_errs(name: str) -> None:
    written, expected = load(name)
    kind, place, words = expected["refused"][0].split(" ", 2)
    diagnosis = read(name, written)
    assert isinstance(diagnosis, Diagnosis), diagnosis
    assert (str(diagnosis.refusal), f"{diagnosis.line}:{diagnosis.column}") == (kind, place), diagnosis
    assert words in diagnosis.message


def test_every_kind_of_refusal_is_shown_by_a_script() -> None:
    kinds = Counter(load(name)[1].get("refused", [""])[0].split(" ")[0] for name in NAMES)
    assert set(Refusal) <= set(kinds)
    assert len(NAMES) >= 70
