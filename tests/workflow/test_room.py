"""What does not fit is shortened: older material first, never the question, and always on record."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaagentx.workflow.ir import Agent, Debate, Reflection, Workflow
from metaagentx.workflow.protocol import Message, Outcome, Reply, RunResult, ToolResult
from metaagentx.workflow.room import CHARACTERS, Room, clipped, widest
from tests.workflow.acting import CALL, Boxed, Stage, box

A, B, C = (Agent(name) for name in "ABC")
T = Agent("T", "", ("calculator",), 2)


def room(longest: int) -> Room:
    return dataclasses.replace(CHARACTERS, longest=longest)


def speech(letter: str, length: int = 30) -> str:
    return letter * length


def test_whole_older_steps_are_left_out_first_and_this_is_said_and_recorded() -> None:
    stage = Stage({"A": speech("a"), "B": speech("b"), "C": box(1)})
    result = stage.play(A, B, C, room=room(70))
    assert stage.shown()[2] == ("C", f"Q?\n\n(left out)\n\n[B]:\n{speech('b')}\n\nyours")
    assert [turn.left_out for turn in result.turns] == [0, 0, len("[A]:\n") + 30]
    assert result.left_out == 35


def test_of_the_newest_step_both_ends_are_kept() -> None:
    stage = Stage({"A": speech("a") + speech("m", 900) + speech("z"), "B": box(1)})
    result = stage.play(A, B, room=room(100))
    shown = stage.shown()[1][1]
    assert shown.startswith("Q?\n\n[A]:\naaa")
    assert shown.endswith("zzz\n\nyours")
    assert f"... {result.left_out} characters left out ..." in shown
    assert 90 < len(shown) <= 100


def test_the_system_message_the_question_and_the_designs_words_are_never_shortened() -> None:
    stage = Stage({"A": speech("a", 500), "B": box(1)})
    question, prompt = speech("q", 200), speech("s", 200)
    result = stage.play(A, Agent("B", prompt), question=question, room=room(10), delivery=Boxed("Box it."))
    system, user = stage.asked[1][1].messages
    assert system.content == f"{prompt}\n\nBox it."
    assert user.content == f"{question}\n\n(left out)\n\nyours"
    assert result.left_out == 505
    assert result.outcome is Outcome.OK  # whether it fits is for the engine to say


def test_what_a_task_splices_in_is_shortened_and_the_task_is_not() -> None:
    stage = Stage({"A": box(speech("1", 300)), "B": box(2)})
    stage.play(A, Agent("B", task="{question} Subtract 7 from {A} now."), room=room(100))
    shown = stage.shown()[1][1]
    assert shown.startswith("Q? Subtract 7 from 111")
    assert shown.endswith("111 now.")
    assert len(shown) <= 100


def test_a_refinement_loses_older_steps_before_the_solution_and_that_before_the_critique() -> None:
    critique = speech("c", 40)
    stage = Stage({"A": speech("a", 200), "B": speech("b", 60), "C": critique})
    stage.play(A, Reflection("R", B, C, 1), room=room(125))
    shown = stage.shown()[3][1]
    assert shown.startswith("Q?\n\n(left out)\n\nfix bbb")
    assert shown.endswith(f"given {critique}")
    assert "a" * 9 not in shown


def test_a_debate_goes_on_in_a_small_room() -> None:
    stage = Stage({"A": speech("a", 400), "B": speech("b", 400)})
    result = stage.play(Debate("D", (A, B), rounds=2), room=room(120))
    assert all(len(text) <= 120 for _, text in stage.shown())
    assert [turn.left_out > 0 for turn in result.turns] == [False, False, True, True, True]


def play_tools(outputs: dict[str, str], lines: list[str], longest: int) -> tuple[Stage, RunResult]:
    class Told(Stage):
        def answer(self, path, request):  # type: ignore[no-untyped-def]
            answer = super().answer(path, request)
            return ToolResult(outputs[request.name]) if isinstance(answer, ToolResult) else answer

    stage = Told({"T": lines})
    agent = dataclasses.replace(T, tools=tuple(outputs))
    return stage, stage.play(agent, room=room(longest))


def test_a_tools_output_takes_half_of_the_room_that_is_left_and_before_the_final_turn_all() -> None:
    stage, result = play_tools({"calculator": speech("o", 5000)}, [CALL, CALL, box(2)], 1000)
    first, second, third = (call.messages for _, call in stage.asked)
    half = (1000 - len("Q?" + CALL)) // 2
    assert half - 3 <= len(second[0].content) <= half
    assert third[1:] == (Message("user", "final"),)
    total = sum(len(m.content) for messages in (first, second, third) for m in messages) + 2 * len(CALL)
    assert 995 <= total <= 1000
    assert [turn.left_out > 0 for turn in result.turns] == [False, True, True]


def test_long_outputs_of_one_reply_are_shortened_alike_and_short_ones_stay_whole() -> None:
    both = CALL + CALL.replace("calculator", "search") + CALL.replace("calculator", "fetch_data")
    outputs = {"calculator": "2", "search": speech("s", 900), "fetch_data": speech("f", 700)}
    stage, _ = play_tools(outputs, [both, box(2)], 1000)
    calculator, search, fetch = stage.asked[1][1].messages
    assert calculator.content == "2"
    assert abs(len(search.content) - len(fetch.content)) <= 1
    assert search.content.startswith("sss")
    assert fetch.content.endswith("fff")


def test_outputs_that_fit_are_never_touched() -> None:
    output = speech("o", 800)
    stage, result = play_tools({"calculator": output}, [CALL, box(2)], 1000)
    assert stage.asked[1][1].messages == (Message("tool", output),)
    assert result.left_out == 0


def test_the_room_is_measured_with_what_it_is_given() -> None:
    """Every message costs ten, its text nothing; a reply costs its tokens."""
    measured = Room(25, lambda messages: 10 * len(messages), lambda reply, messages: reply.tokens + 10 * len(messages))
    stage = Stage({"T": [Reply(CALL, tokens=6), Reply(box(2), tokens=1)]})
    result = stage.play(T, room=measured)
    assert stage.asked[1][1].messages == (Message("tool", "\n... 14 characters left out ...\n"),)
    assert result.left_out == len("ran calculator")


@given(st.text(max_size=50), st.integers(0, 60))
def test_a_clipped_text_keeps_its_ends_and_is_no_longer_than_allowed(text: str, most: int) -> None:
    kept, left_out = clipped(text, most, "|{count}|")
    assert len(kept) <= max(most, len(f"|{len(text)}|"))
    if len(text) <= most:
        assert (kept, left_out) == (text, 0)
    else:
        head = (len(text) - left_out) // 2
        assert kept == f"{text[:head]}|{left_out}|{text[head + left_out :]}"


@pytest.mark.parametrize("limit", [-1, 0, 1, 7, 99, 100, 101])
def test_the_widest_is_the_last_that_fits(limit: int) -> None:
    assert widest(lambda number: number <= limit, 100) == min(max(limit, 0), 100)


def test_a_nested_workflow_is_shortened_like_any_step() -> None:
    stage = Stage({"A": speech("a"), "B": speech("b", 300), "C": box(1)})
    stage.play(A, Workflow("W", (B,)), C, room=room(90))
    shown = stage.shown()[2][1]
    assert shown.startswith("Q?\n\n(left out)\n\n[W]:\nbbb")
    assert len(shown) <= 90
