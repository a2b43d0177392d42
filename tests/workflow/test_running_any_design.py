"""Whatever the design and the replies: bounds hold, order does not matter, and a record gives the same run."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaagentx.workflow.bounds import bounds
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Agent, Workflow
from metaagentx.workflow.protocol import Call, Outcome, Process, Reply, RunResult, ToolCall, ToolResult
from metaagentx.workflow.replay import Path, record, replay, run_again
from metaagentx.workflow.room import CHARACTERS
from tests.workflow.acting import CALL, Boxed, box
from tests.workflow.strategies import workflows

A, B = (Agent(name) for name in "AB")
T = Agent("T", "", ("calculator",), 1)


def chatter(seed: int):
    """Replies of all sorts, a function of the path, the agent and how often it was asked there."""
    sorts = (
        *(box(n) for n in range(3)), "", "so what", "VERDICT: CORRECT", "VERDICT: wrong", CALL, CALL * 2, CALL * 12,
        "<tool_call>{", "```python\n1\n```",
    )  # fmt: skip
    counts: dict[Path, int] = {}

    def answer(path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        if isinstance(request, ToolCall):
            draw = random.Random(f"{seed} {path} {counts[path]} {request}")
            return ToolResult("out " * draw.randrange(9), ok=draw.random() < 0.5)
        counts[path] = counts.get(path, 0) + 1
        draw = random.Random(f"{seed} {path} {counts[path]}")
        text = draw.choice(sorts)
        outcome = draw.choice((Outcome.OK, Outcome.CUT)) if text else draw.choice((Outcome.FAILED, Outcome.TOO_LONG))
        return Reply(text, outcome, draw.randrange(9))

    return answer


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    workflows(),
    st.integers(0, 10**6),
    st.sampled_from([3, 17, 10**6]),
    st.sampled_from([0, 2, 10**6]),
    st.sampled_from([40, 32768]),
)
def test_no_order_of_answering_changes_a_run_no_run_exceeds_its_bounds_and_its_record_gives_it_again(
    design: Workflow, seed: int, most: int, most_tools: int, longest: int
) -> None:
    if bounds(design).model_calls > 500:
        return

    def process() -> Process[RunResult]:
        room = dataclasses.replace(CHARACTERS, longest=longest)
        return run(design, "Q?", Boxed(), max_calls=most, max_tool_calls=most_tools, room=room)

    result, answers = record(process(), chatter(seed))
    assert record(process(), chatter(seed), order=random.Random(seed)) == (result, answers)
    assert replay(process(), answers) == result
    if most == 10**6:
        assert run_again(process(), result.turns) == result
    assert result.calls <= min(most, bounds(design).model_calls)
    assert result.tokens == sum(turn.reply.tokens for turn in result.turns)
    assert result.tool_calls <= most_tools
    assert result.tool_calls + result.refused_tool_calls == sum(len(turn.tool_calls) for turn in result.turns)
    assert result.left_out == sum(turn.left_out for turn in result.turns)
    sampled = [turn for turn in result.turns if turn.reply.outcome is not Outcome.OVER_BUDGET]
    assert len(sampled) == result.calls
    if most == 10**6:
        assert len(sampled) == len(result.turns)
    if most_tools == 10**6:
        assert result.refused_tool_calls == 0


def test_a_record_of_another_run_is_refused() -> None:
    _, answers = record(run(Workflow("w", (A,)), "Q?", Boxed(), max_calls=9), chatter(0))
    with pytest.raises(ValueError, match=r"number 1 at .*'B'"):
        replay(run(Workflow("w", (A, B)), "Q?", Boxed(), max_calls=9), answers)


def play(*steps: Agent, question: str = "Q?", most: int = 9) -> Process[RunResult]:
    return run(Workflow("w", steps), question, Boxed(), max_calls=most)


@pytest.mark.parametrize(
    ("process", "why"),
    [
        (play(A, T, question="Another?"), "did not ask 'A' this"),
        (play(A, T, B), "did not ask 'B' this"),
        (play(A), "3 turns, and this one 1"),
        (play(A, T, most=1), "3 turns, and this one 2"),
    ],
)
def test_turns_of_another_run_are_refused(process: Process[RunResult], why: str) -> None:
    result, _ = record(play(A, T), lambda path, request: told(request))
    assert run_again(play(A, T), result.turns) == result
    with pytest.raises(ValueError, match=why):
        run_again(process, result.turns)


def test_a_tool_called_otherwise_is_refused() -> None:
    result, _ = record(play(T), lambda path, request: told(request))
    first = dataclasses.replace(result.turns[0], tool_calls=(ToolCall("calculator", {"expression": "2"}, "T"),))
    with pytest.raises(ValueError, match=r"did not call 'calculator' with \{'expression': '1\+1'\}"):
        run_again(play(T), (first, *result.turns[1:]))


@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_run_over_its_budget_of_calls_is_run_again(most: int) -> None:
    result, _ = record(play(A, T, B, most=most), lambda path, request: told(request))
    assert result.outcome is Outcome.OVER_BUDGET
    assert run_again(play(A, T, B, most=most), result.turns) == result


def told(request: Call | ToolCall) -> Reply | ToolResult:
    return Reply(CALL, tokens=3) if isinstance(request, Call) else ToolResult("2")
