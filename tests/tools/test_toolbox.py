"""A toolbox runs whatever a model asks for, side by side and within bounds, and answers with a result."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import wait
from typing import Any

import pytest

from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.options import ToolOptions
from metaagentx.tools.tool import Tool, ToolError, tool
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.protocol import ToolCall, ToolResult


@tool
def repeat(text: str, times: int = 2) -> str:
    """Repeats."""
    return text * times


@tool
def fail(how: str) -> str:
    """Fails."""

    class Speechless(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    raise {
        "plain": RuntimeError("boom " * 500),
        "told": ToolError("one is enough"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "speechless": Speechless(),
    }[how]


@tool
def give(kind: str) -> list[float]:
    """Gives a value."""
    return {"list": [1.5, 2.0], "nan": [float("nan")], "object": [object()]}[kind]  # type: ignore[return-value]


@tool
def spoil(words: list[str]) -> str:
    """Changes its argument."""
    words.append("spoilt")
    return " ".join(words)


BOX = Toolbox([repeat, fail, give, spoil, make_calculator()], ToolOptions(longest=100))


def call(name: str, **arguments: object) -> ToolResult:
    return BOX.run(ToolCall(name, arguments, "A"))


def test_a_tool_is_called_by_name() -> None:
    assert call("repeat", text="ab") == ToolResult("abab")
    assert call("repeat", text="a", times=3) == ToolResult("aaa")
    assert call("calculator", expression="1 + 1") == ToolResult("2")
    assert BOX.submit(ToolCall("repeat", {"text": "ab"}, "A")).result(10) == ToolResult("abab")
    assert BOX.names() == {"repeat", "fail", "give", "spoil", "calculator"}
    assert BOX.texts()["repeat"] == repeat.text()


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("repaet", {}, "there is no tool 'repaet'; there is repeat, fail, give, spoil, calculator"),
        ("x" * 10**6, {}, "there is no tool 'xxx"),
        ("repeat", {}, "repeat: the argument 'text' is missing; expected (text: string, times: integer = 2)"),
        ("repeat", {"text": "a", "times": "3"}, "'times' must be of type integer, not string"),
        ("fail", {"how": "plain"}, "fail: RuntimeError: boom"),
        ("fail", {"how": "told"}, "one is enough"),
        ("fail", {"how": "exit"}, "fail: SystemExit: 3"),
        ("fail", {"how": "interrupt"}, "fail: KeyboardInterrupt"),
        ("fail", {"how": "speechless"}, "fail: Speechless"),
        ("fail", {"how": "new"}, "fail: KeyError: 'new'"),
        ("give", {"kind": "nan"}, "give: ValueError"),
        ("give", {"kind": "object"}, "give: TypeError"),
        ("calculator", {"expression": "1 / 0"}, "division by zero"),
        ("calculator", {"expression": None}, "must be of type string, not null"),
    ],
)
def test_what_goes_wrong_is_a_result_that_says_what_would_be_right(name: str, arguments: dict, error: str) -> None:
    result = call(name, **arguments)
    assert not result.ok
    assert error in result.text
    assert len(result.text) < 200


def test_a_result_that_is_no_text_is_told_as_json() -> None:
    assert call("give", kind="list") == ToolResult("[1.5, 2.0]")


def test_a_long_output_keeps_its_beginning_and_its_end() -> None:
    text = call("repeat", text="x", times=10**6).text
    assert len(text) < 200
    assert text.startswith("x" * 50)
    assert text.endswith("x" * 50)
    assert str(10**6 - 100) in text


def test_an_output_can_always_be_encoded() -> None:
    assert call("repeat", text="\ud800a") == ToolResult("?a?a")


@pytest.mark.parametrize("tag", ["</tool_response>", "<tool_call>", "</think>", "<TOOLS>", "<tool_<tool_call>call>"])
def test_an_output_ends_no_result_and_begins_no_call(tag: str) -> None:
    assert "<tool_call>" not in call("repeat", text=f"a{tag}b").text
    assert tag not in call("repeat", text=f"a{tag}b").text
    assert tag not in call("fail", how=tag).text
    assert call("repeat", text="a < b > c <i>") == ToolResult("a < b > c <i>" * 2)


def test_a_tool_cannot_change_the_record_of_its_call() -> None:
    asked = ToolCall("spoil", {"words": ["a"]}, "A")
    assert BOX.run(asked) == BOX.run(asked) == ToolResult("a spoilt")
    assert asked.arguments == {"words": ["a"]}


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tools of the name 'repeat'"):
        Toolbox([repeat, repeat])


def gated(seconds: float, workers: int = 8, abandoned: int = 2, timed: bool = False) -> tuple[Any, Any, list[int]]:
    """(submit, gate, [most calls at a time]): a tool that waits for its gate."""
    gate, lock, running, most = threading.Event(), threading.Lock(), [0], [0]

    def hold(number: int) -> str:
        """Waits."""
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(30)
        with lock:
            running[0] -= 1
        return str(number)

    options = ToolOptions(seconds=seconds, workers=workers, abandoned=abandoned)
    held = Tool.of(hold)
    box = Toolbox([Tool(held.name, held.description, held.parameters, hold, timed), repeat], options)
    return lambda number: box.submit(ToolCall("hold", {"number": number}, "A")), gate, most


def test_calls_run_side_by_side_up_to_a_bound_and_begin_in_order() -> None:
    submit, gate, most = gated(seconds=20, workers=3)
    futures = [submit(number) for number in range(10)]
    assert not wait(futures, 0.1).done
    gate.set()
    assert [future.result(10).text for future in futures] == [str(number) for number in range(10)]
    assert most[0] == 3


def test_a_call_that_takes_too_long_is_given_up_and_its_place_is_free() -> None:
    submit, gate, _ = gated(seconds=0.1, workers=1, abandoned=9)
    started = time.monotonic()
    results = [future.result(10) for future in [submit(0), submit(1), submit(2)]]
    assert {(result.ok, result.text) for result in results} == {
        (False, "hold took longer than 0.1 seconds and was given up")
    }
    assert 0.3 <= time.monotonic() - started < 5, "the time of a call counts from its own beginning"
    gate.set()


def test_a_tool_whose_calls_do_not_end_is_turned_down_until_they_do() -> None:
    submit, gate, _ = gated(seconds=0.1, abandoned=2)
    for future in [submit(0), submit(1)]:
        assert "given up" in future.result(10).text
    assert submit(2).result(10) == ToolResult("hold is out of service: too many of its calls did not end", ok=False)
    gate.set()
    deadline = time.monotonic() + 10
    while not submit(3).result(10).ok:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_calls_that_wait_are_turned_down_too() -> None:
    submit, gate, _ = gated(seconds=0.1, workers=2, abandoned=2)
    texts = [future.result(10).text for future in [submit(number) for number in range(50)]]
    begun = sum("given up" in text for text in texts)
    assert 2 <= begun <= 3, "a third may begin between the ends of the first two"
    assert sum("out of service" in text for text in texts) == 50 - begun
    gate.set()


def test_every_call_gets_one_result_whenever_it_ends() -> None:
    def nap(milliseconds: int) -> str:
        """Sleeps about as long as it may."""
        time.sleep(milliseconds / 1000)
        return str(milliseconds)

    box = Toolbox([Tool.of(nap)], ToolOptions(seconds=0.02, workers=4, abandoned=1000))
    times = [5 * (number % 9) for number in range(90)]
    results = [future.result(30) for future in [box.submit(ToolCall("nap", {"milliseconds": n}, "A")) for n in times]]
    assert all(
        result.text == str(n) if result.ok else "given up" in result.text
        for result, n in zip(results, times, strict=True)
    )
    assert any(result.ok for result in results)
    assert not all(result.ok for result in results)


def test_a_tool_with_limits_of_its_own_keeps_to_those() -> None:
    submit, gate, _ = gated(seconds=0.05, timed=True)
    future = submit(7)
    assert not wait([future], 0.2).done
    gate.set()
    assert future.result(10) == ToolResult("7")


def test_an_instant_tool_runs_in_its_caller_and_leaves_it_its_interrupts() -> None:
    def here(interrupted: bool) -> str:
        """Says where it runs."""
        if interrupted:
            raise KeyboardInterrupt
        return str(threading.get_ident())

    box = Toolbox([dataclasses.replace(Tool.of(here), instant=True)])
    future = box.submit(ToolCall("here", {"interrupted": False}, "A"))
    assert future.done()
    assert future.result() == ToolResult(str(threading.get_ident()))
    with pytest.raises(KeyboardInterrupt):
        box.submit(ToolCall("here", {"interrupted": True}, "A"))


def test_a_result_cannot_be_cancelled_from_outside() -> None:
    submit, gate, _ = gated(seconds=20)
    future = submit(1)
    assert not future.cancel()
    gate.set()
    assert future.result(10).ok
