"""What docs/workflow_language.md shows is what the reader does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metaagentx.workflow.constructors import TABLE
from metaagentx.workflow.ir import Design, Diagnosis, Limits, Refusal
from metaagentx.workflow.parse import parse_response
from metaagentx.workflow.script import parse_script

TEXT = (Path(__file__).parents[2] / "docs" / "workflow_language.md").read_text(encoding="utf-8")
TOOLS = frozenset({"python_execute"})
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
BEFORE = re.search(r":\n\n```\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (\d+:\d+) \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_a_design_without_remarks(block: str) -> None:
    design = parse_script(block, Limits(), TOOLS)
    assert isinstance(design, Design), design
    assert not design.remarks


@pytest.mark.parametrize(("kind", "example", "place"), ROWS)
def test_a_refused_example_is_refused_where_it_says(kind: str, example: str, place: str) -> None:
    assert BEFORE is not None
    response = example if kind == "no_code" else f"<code>\n{BEFORE[1]}{example}\n</code>"
    diagnosis = parse_response(response, limits=Limits(), tools=TOOLS, palette={})
    assert isinstance(diagnosis, Diagnosis), diagnosis
    assert (str(diagnosis.refusal), f"{diagnosis.line}:{diagnosis.column}") == (kind, place), diagnosis


def test_every_kind_of_refusal_has_an_example() -> None:
    assert sorted(kind for kind, *_ in ROWS) == sorted(Refusal)


@pytest.mark.parametrize("constructor", TABLE)
def test_every_keyword_is_named(constructor: str) -> None:
    (row,) = re.findall(rf"^\| (.*`{constructor}`.*? \| .*) \|$", TEXT, re.MULTILINE)
    assert not [keyword for keyword in TABLE[constructor] if f"`{keyword}" not in row]
