"""What is read from replies: verdicts, votes, tool calls. The texts are hostile."""

from __future__ import annotations

import time

import pytest

from metaagentx.workflow.protocol import ToolCall
from metaagentx.workflow.tool_calls import MOST_CALLS, Malformed, read_tool_calls
from metaagentx.workflow.verdict import accepts
from metaagentx.workflow.votes import is_split, tally, winner
from tests.workflow.acting import Boxed


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("VERDICT: CORRECT", True),
        ("VERDICT: INCORRECT", False),
        ("The critique ends in INCORRECT", False),
        ("**Verdict:** accepted.", True),
        ("**VERDICT**: reject", False),
        ("VERDICT: not correct", False),
        ("VERDICT: [PASS]", True),
        ("VERDICT: approved, nothing to revise", True),
        ("VERDICT: INCORRECT\nVERDICT: CORRECT", True),
        ("VERDICT:\nfail", False),
        ("VERDICT: maybe", None),
        ("It is correct.\nVERDICT: maybe", None),
        ("It is correct.", True),
        ("The answer is correct.\nBut the format fails.", False),
        ("incorrect at first\nNow all is correct.", True),
        ("This isn't correct", False),
        ("This is not entirely correct", False),
        ("I cannot accept this", False),
        ("Correct, but please revise the text", False),
        ("Looks good", None),
        ("correctness matters", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_a_verdict_is_a_word(text: str, verdict: bool | None) -> None:
    assert accepts(text) is verdict


@pytest.mark.parametrize(
    "text",
    ["verdict" * 9000, "not " * 16000, "VERDICT:" * 8000, "a" * 65536 + "n't", "x\n" * 30000, "verdict" + "*" * 65000],
)
def test_a_verdict_is_read_in_linear_time(text: str) -> None:
    started = time.process_time()
    accepts(text)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("answers", "weights", "split", "index"),
    [
        (["5", "7", "5 "], None, True, 0),
        (["5", "7", "7"], None, True, 1),
        (["5", "7"], None, True, 0),
        (["5", "7"], (1.0, 2.0), True, 1),
        (["5", "7"], (0.0, 0.0), True, 0),
        ([None, "7", "7"], None, False, 1),
        ([None, None], None, False, None),
        ([], None, False, None),
    ],
)
def test_votes_are_counted(answers: list, weights: tuple | None, split: bool, index: int | None) -> None:
    assert is_split(tally(answers, weights, str.strip)) is split
    assert winner(answers, weights, str.strip) == index


def read(text: str, *tools: str) -> tuple[ToolCall | Malformed, ...]:
    return read_tool_calls(text, "A", tools or ("calculator",), Boxed().extract)


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "f", "arguments": {"x": 1}}',
        '{"name": "f", "parameters": {"x": 1}}',
        '{"function": {"name": "f", "arguments": {"x": 1}}}',
        '{"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}',
        '{"name": "f", "arguments": "{\\"x\\": 1}"}',
        '\n {"name": "f", "arguments": {"x": 1}} \n',
    ],
)
def test_a_tool_call_is_read_in_each_of_its_forms(body: str) -> None:
    assert read(f"let me see <tool_call>{body}</tool_call> and wait") == (ToolCall("f", {"x": 1}, "A"),)
    assert read(f"<tool_call>{body}") == (ToolCall("f", {"x": 1}, "A"),)


def test_several_calls_are_read_in_order_up_to_a_bound() -> None:
    text = "".join(f'<tool_call>{{"name": "f{n}"}}</tool_call>' for n in range(50))
    assert [call.name for call in read(text) if isinstance(call, ToolCall)] == [f"f{n}" for n in range(MOST_CALLS)]


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "[]", "1", '"f"', '{"name": 3}', '{"function": {}}', "[" * 60000, "1" * 60000, "x" * 65537),
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "x"}',
        *('{"name": "f", "arguments": {"x": NaN}}', '{"name": "f", "arguments": "{\\"x\\": [-1e999]}"}'),
        '{"name": "f", "arguments": {"x": ' + "[" * 200 + "]" * 200 + "}}",
    ],
)
def test_what_is_no_call_is_malformed_and_says_why(body: str) -> None:
    (call,) = read(f"<tool_call>{body}</tool_call>")
    assert isinstance(call, Malformed)
    assert call.error


FENCE = "Run:\n```python\nprint(1)\n```\n"


@pytest.mark.parametrize(
    ("text", "tools", "code"),
    [
        (FENCE, ("search", "python_execute"), "print(1)\n"),
        (FENCE, ("execute_code",), "print(1)\n"),
        (FENCE, ("calculator",), None),
        (FENCE + "\\boxed{1}", ("python_execute",), None),
        ("```\nprint(1)\n```", ("python_execute",), None),
        ("```python\nprint(1)", ("python_execute",), None),
    ],
)
def test_a_fence_is_a_call_only_with_a_python_tool_and_without_an_answer(
    text: str, tools: tuple[str, ...], code: str | None
) -> None:
    expected = () if code is None else (ToolCall(tools[-1], {"code": code}, "A"),)
    assert read(text, *tools) == expected


@pytest.mark.parametrize("text", ["<tool_call>" * 6000, "```python\n" * 6000, "`" * 65536, " \t" * 30000])
def test_tool_calls_are_read_in_linear_time(text: str) -> None:
    started = time.process_time()
    read(text, "python_execute")
    assert time.process_time() - started < 1
