"""Agents that call tools: what is run, what they are told, and when it ends."""

from __future__ import annotations

import dataclasses
import random

import pytest

from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Agent, Ensemble, Workflow
from metaagentx.workflow.protocol import Call, Message, Outcome, Reply, ToolCall, ToolCalls, ToolResult
from metaagentx.workflow.replay import Path, drive
from tests.workflow.acting import CALL, Boxed, Stage, box

A = Agent("A")
T = Agent("T", "", ("calculator",), 2)


def test_a_tool_call_is_run_and_its_result_comes_back_as_new_messages_of_one_conversation() -> None:
    stage = Stage({"T": ["let me see " + CALL, box(2)]})
    result = stage.play(T)
    assert stage.ran == [ToolCall("calculator", {"expression": "1+1"}, "T")]
    calls = [call for _, call in stage.asked]
    assert [(call.conversation, call.turn) for call in calls] == [(0, 0), (0, 1)]
    assert calls[1].messages == (Message("tool", "ran calculator"),)
    assert (result.answer, result.calls, result.tool_calls) == ("2", 2, 1)
    assert result.turns[0].tool_calls == (stage.ran[0],)
    assert result.turns[0].tool_results == (ToolResult("ran calculator"),)


def test_after_max_turns_the_agent_is_asked_once_for_its_answer_and_its_calls_are_ignored() -> None:
    stage = Stage({"T": CALL})
    result = stage.play(T)
    assert [call.messages for _, call in stage.asked[1:]] == [
        (Message("tool", "ran calculator"),),
        (Message("tool", "ran calculator"), Message("user", "final")),
    ]
    assert (result.calls, result.tool_calls, result.outcome) == (3, 2, Outcome.UNPARSABLE)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("<tool_call>{oops}</tool_call>", "Error: a tool call is one JSON object"),
        (
            '<tool_call>{"name": "oracle", "arguments": {}}</tool_call>',
            "Error: there is no tool 'oracle'; there is calculator",
        ),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": "fail"}}</tool_call>', "Error: ran calculator"),
    ],
)
def test_what_goes_wrong_with_a_tool_is_told_to_the_agent(written: str, told: str) -> None:
    stage = Stage({"T": [written, box(2)]})
    assert stage.play(T).outcome is Outcome.OK
    message = stage.asked[1][1].messages[0]
    assert message.role == "tool"
    assert message.content.startswith(told)


def test_an_agent_without_tools_calls_none() -> None:
    stage = Stage({"A": CALL})
    assert stage.play(A).calls == 1
    assert not stage.ran


def test_descriptions_of_tools_are_shown_to_those_who_may_call_them() -> None:
    asked: list[Call] = []

    def answer(path: Path, request: Call | ToolCall) -> Reply:
        assert isinstance(request, Call)
        asked.append(request)
        return Reply(box(1))

    process = run(
        Workflow("w", (A, T)), "Q?", Boxed(), max_calls=9, tool_texts={"calculator": "CALC", "search": "SEARCH"}
    )
    drive(process, answer)
    assert [message.role for message in asked[0].messages] == ["user"]
    assert "CALC" in asked[1].messages[0].content
    assert "SEARCH" not in asked[1].messages[0].content


def expression(text: str) -> str:
    return CALL.replace("1+1", text)


def test_the_calls_of_one_reply_are_asked_for_together_and_told_in_their_order() -> None:
    process = run(Workflow("w", (T,)), "Q?", Boxed(), max_calls=9)
    assert isinstance(next(process), Call)
    asked = process.send(Reply(expression("1") + "<tool_call>{oops</tool_call>" + expression("2")))
    assert isinstance(asked, ToolCalls)
    assert [call.arguments["expression"] for call in asked.calls] == ["1", "2"]
    again = process.send((ToolResult("one"), ToolResult("two", ok=False)))
    assert isinstance(again, Call)
    one, wrong, two = again.messages
    assert one.content == "one"
    assert wrong.content.startswith("Error: a tool call is one JSON object")
    assert two.content == "Error: two"


def test_calls_beyond_the_first_eight_of_a_reply_are_not_run_and_this_is_said() -> None:
    stage = Stage({"T": ["".join(expression(str(n)) for n in range(11)), box(2)]})
    assert stage.play(T).tool_calls == 8
    assert [call.arguments["expression"] for call in stage.ran] == [str(n) for n in range(8)]
    assert stage.asked[1][1].messages[8:] == (Message("tool", "Error: of one reply only the first 8 calls are read"),)


def test_tools_beyond_the_bound_are_not_run_and_the_agent_is_told_so() -> None:
    stage = Stage({"T": [expression("1") + expression("2"), expression("3"), box(2)]})
    result = stage.play(T, max_tool_calls=1)
    spent = Message("tool", "Error: this run may make no more tool calls; go on without")
    assert [call.messages for _, call in stage.asked[1:]] == [
        (Message("tool", "ran calculator"), spent),
        (spent, Message("user", "final")),
    ]
    assert (result.tool_calls, result.refused_tool_calls, result.outcome) == (1, 2, Outcome.OK)
    assert [len(turn.tool_results) for turn in result.turns] == [2, 1, 0]


def test_branches_share_the_bound_on_tools_evenly_and_those_without_tools_get_none() -> None:
    members = (Agent("A"), T, dataclasses.replace(T, name="U"))
    lines = {"A": box(1), "T": [expression("1") * 3, box(1)], "U": [expression("2") * 3, box(1)]}
    orders = [random.Random(seed) for seed in range(9)]
    results = [Stage(lines).play(Ensemble("E", members), max_tool_calls=5, order=order) for order in orders]
    assert all(result == results[0] for result in results)
    assert [len(turn.tool_calls) for turn in results[0].turns] == [0, 3, 0, 3, 0]
    refused = [sum(not result.ok for result in turn.tool_results) for turn in results[0].turns]
    assert refused == [0, 0, 0, 1, 0]
    assert (results[0].tool_calls, results[0].refused_tool_calls) == (5, 1)


def test_what_one_step_leaves_of_the_bound_the_next_may_use() -> None:
    stage = Stage({"T": [expression("1"), box(1)], "U": [expression("2") * 3, box(1)]})
    result = stage.play(Ensemble("E", (T,)), dataclasses.replace(T, name="U"), max_tool_calls=3)
    assert (result.tool_calls, result.refused_tool_calls) == (3, 1)
