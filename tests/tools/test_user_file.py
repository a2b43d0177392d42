"""A user's file of tools is imported, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaagentx.tools.user_file import read_tools

GOOD = '''
from __future__ import annotations

from dataclasses import dataclass

from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.tool import tool


@dataclass
class Scale:
    zero: float


@tool
def second(degrees: float) -> float:
    """Kelvin."""
    return degrees + Scale(273.15).zero


@tool
def first(degrees: float) -> str:
    """Fahrenheit."""
    return f"{degrees * 1.8 + 32:g}"


borrowed = make_calculator()
'''


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_tool_of_a_file_is_found_in_its_order_and_no_other(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    for _ in range(2):
        tools = read_tools(path)
        assert [tool.name for tool in tools] == ["second", "first"]
        assert tools[1](degrees=100) == "212"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "mine.py: cannot be imported: SyntaxError: .*line 1"),
        ("import no_such_module_at_all", "mine.py: cannot be imported: ModuleNotFoundError: .*no_such_module_at_all"),
        ("raise SystemExit(0)", "mine.py: cannot be imported: SystemExit"),
        ("1 / 0", "mine.py: cannot be imported: ZeroDivisionError"),
        ("def f(x: int) -> str:\n    'Does.'", "mine.py: makes no tool; a function becomes one by @tool"),
        (
            "from metaagentx.tools.tool import tool\n@tool\ndef f(x) -> str:\n    'Does.'",
            "BadTool: f: the parameter 'x'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tools(written(tmp_path, text))


def test_a_path_must_lead_to_a_python_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path, written(tmp_path, GOOD, "mine.txt")):
        with pytest.raises(ValueError, match="must be a Python file"):
            read_tools(path)


def test_two_files_may_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = read_tools(written(tmp_path, GOOD))
    there = read_tools(written(tmp_path / "other", GOOD.replace("Kelvin", "Absolute")))
    assert [tools[0].description for tools in (here, there)] == ["Kelvin.", "Absolute."]
    assert here[0](degrees=0) == there[0](degrees=0) == 273.15
