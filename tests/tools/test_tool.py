"""A toolbox runs whatever a model asks for and answers with a result."""

from __future__ import annotations

import json

import pytest

from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.tool import Tool, Toolbox
from metaagentx.workflow.protocol import ToolCall, ToolResult


def repeat(text: str, times: int = 2, flag: bool = False) -> str:
    if flag:
        raise RuntimeError("boom " * 500)
    return text * times


PARAMETERS = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer"}, "flag": {"type": "boolean"}},
    "required": ["text"],
}
BOX = Toolbox([Tool("repeat", "Repeats.", PARAMETERS, repeat), make_calculator()], longest=100)


def call(name: str, **arguments: object) -> ToolResult:
    return BOX.run(ToolCall(name, arguments, "A"))


def test_a_tool_is_a_plain_function_called_by_name() -> None:
    assert call("repeat", text="ab") == ToolResult("abab")
    assert call("repeat", text="a", times=3) == ToolResult("aaa")
    assert call("calculator", expression="1 + 1") == ToolResult("2")


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("repaet", {}, "there is no tool 'repaet'; there is repeat, calculator"),
        ("repeat", {}, "'text' is missing; expected (text: string"),
        ("repeat", {"text": 3}, "'text' must be of type string, not int"),
        ("repeat", {"text": "a", "times": True}, "'times' must be of type integer, not bool"),
        ("repeat", {"text": "a", "self": 1}, "no argument 'self'"),
        ("repeat", {"text": "a", "flag": True}, "RuntimeError: boom"),
        ("calculator", {"expression": "1 / 0"}, "division by zero"),
        ("calculator", {"expression": None}, "must be of type string, not NoneType"),
    ],
)
def test_what_goes_wrong_is_a_result_that_says_what_would_be_right(name: str, arguments: dict, error: str) -> None:
    result = call(name, **arguments)
    assert not result.ok
    assert error in result.text


def test_a_long_output_keeps_its_beginning_and_its_end() -> None:
    text = call("repeat", text="x", times=10**6).text
    assert len(text) < 200
    assert text.startswith("x" * 50)
    assert text.endswith("x" * 50)
    assert str(10**6 - 100) in text
    assert len(call("repeat", text="a", flag=True).text) < 200


def test_a_model_is_told_of_a_tool_in_one_line_of_json() -> None:
    text = BOX.texts()["repeat"]
    assert json.loads(text) == {"name": "repeat", "description": "Repeats.", "parameters": PARAMETERS}
    assert BOX.names() == {"repeat", "calculator"}
