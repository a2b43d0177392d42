"""What agents in sequence are shown, and what comes of replies that fail."""

from __future__ import annotations

import pytest

from metaagentx.workflow.ir import Agent, Branch, Contains, Ensemble, Reflection
from metaagentx.workflow.protocol import Message, Outcome, Reply
from tests.workflow.acting import CALL, Boxed, Stage, box

A, B, C, J = (Agent(name) for name in "ABCJ")


def test_the_first_agent_sees_the_question_and_later_ones_what_was_delivered() -> None:
    stage = Stage({"A": box(1), "B": "no box", "C": box(3)})
    result = stage.play(A, B, C)
    assert stage.shown() == [
        ("A", "Q?"),
        ("B", "Q?\n\n[A]:\n1\n\nyours"),
        ("C", "Q?\n\n[A]:\n1\n\n[B]:\nno box\n\nyours"),
    ]
    assert (result.answer, result.outcome, result.calls) == ("3", Outcome.OK, 3)
    assert result.tokens == len(box(1)) + len("no box") + len(box(3))
    assert [turn.agent for turn in result.turns] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("prompt", "instruction", "system"),
    [
        ("", "", None),
        ("Be good.", "", "Be good."),
        ("", "Box it.", "Box it."),
        ("Be good.", "Box it.", "Be good.\n\nBox it."),
    ],
)
def test_the_system_message_is_prompt_and_instruction_or_absent(
    prompt: str, instruction: str, system: str | None
) -> None:
    stage = Stage({"A": box(1)})
    stage.play(Agent("A", prompt), delivery=Boxed(instruction))
    expected = [] if system is None else [Message("system", system)]
    assert list(stage.asked[0][1].messages) == [*expected, Message("user", "Q?")]


def test_a_prompt_that_asks_the_question_asks_the_real_one_and_braces_stay() -> None:
    stage = Stage({"A": box(1)})
    stage.play(Agent("A", "Solve {question} by {method}, \\frac{1}{2}."), question="{method} 2+2?")
    assert stage.asked[0][1].messages[0].content == "Solve {method} 2+2? by {method}, \\frac{1}{2}."


def test_an_agent_with_a_task_sees_the_filled_task_and_nothing_else() -> None:
    stage = Stage({"A": box(3), "B": "nothing", "C": box(0)})
    stage.play(A, B, Agent("C", task="{A} - 7 {B}| {question} {A"))
    assert stage.shown()[2] == ("C", "3 - 7 | Q? {A")


def test_what_is_spliced_into_a_task_is_not_read_as_a_template() -> None:
    stage = Stage({"A": box("<B>"), "B": box(1)})
    stage.play(A, Agent("B", task="{A}"), question="{A}")
    assert stage.shown() == [("A", "{A}"), ("B", "<B>")]


def test_thoughts_are_no_message_no_tool_call_and_no_verdict() -> None:
    thoughts = f"<think>DONE {CALL} VERDICT: CORRECT {box(1)}</think>"
    stage = Stage({"T": f"{thoughts}{box(2)}", "C": f"{thoughts}VERDICT: revise", "B": box(3)})
    solver = Agent("T", "", ("calculator",), 3)
    result = stage.play(Reflection("R", solver, Agent("C"), 1), Branch("b", Contains("DONE"), (B,)))
    assert not stage.ran
    assert [agent for agent, _ in stage.shown()] == ["T", "C", "T"]
    assert not any("<think>" in text for _, text in stage.shown())
    assert (result.text, result.answer) == (box(2), "2")


def test_a_reply_of_nothing_but_thoughts_is_empty() -> None:
    result = Stage({"A": f"<think>{box(1)}</think>\n"}).play(A)
    assert (result.text, result.answer, result.outcome) == ("", None, Outcome.EMPTY)


def test_the_answer_is_the_last_one_of_the_last_message() -> None:
    assert Stage({"A": box(7), "B": box(5) + box(7) + box(5)}).play(A, B).answer == "5"


def test_a_reply_lost_by_our_own_fault_fails_the_run() -> None:
    stage = Stage({"A": Reply("", Outcome.FAILED), "B": box(2)})
    result = stage.play(A, B)
    assert stage.shown()[1] == ("B", "Q?\n\n[A]: (no reply)\n\nyours")
    assert (result.outcome, result.answer) == (Outcome.FAILED, "2")


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        (Reply(""), "[A]: (no reply)"),
        (Reply("", Outcome.TOO_LONG), "[A]: (no reply)"),
        (Reply("  \n"), "[A]: (no reply)"),
        (Reply(box(4), Outcome.CUT), "[A]:\n4"),
        (Reply("half a", Outcome.CUT), "[A]:\nhalf a"),
    ],
)
def test_a_reply_that_fails_is_a_message_and_the_run_goes_on(reply: Reply, seen: str) -> None:
    stage = Stage({"A": reply, "B": box(2)})
    result = stage.play(A, B)
    assert stage.shown()[1] == ("B", f"Q?\n\n{seen}\n\nyours")
    assert result.outcome is Outcome.OK


@pytest.mark.parametrize(
    ("reply", "outcome", "answer"),
    [
        (Reply(""), Outcome.EMPTY, None),
        (Reply("", Outcome.CUT), Outcome.EMPTY, None),
        (Reply("", Outcome.FAILED), Outcome.FAILED, None),
        (Reply("", Outcome.TOO_LONG), Outcome.TOO_LONG, None),
        (Reply("no box"), Outcome.UNPARSABLE, None),
        (Reply("no b", Outcome.CUT), Outcome.UNPARSABLE, None),
        (Reply(box(4), Outcome.CUT), Outcome.OK, "4"),
    ],
)
def test_the_last_message_decides_how_the_run_ended(reply: Reply, outcome: Outcome, answer: str | None) -> None:
    result = Stage({"A": box(1), "B": reply}).play(A, B)
    assert (result.outcome, result.answer) == (outcome, answer)


def test_calls_beyond_the_budget_are_not_sampled_and_end_over_budget() -> None:
    stage = Stage({"A": box(1), "B": box(2), "C": box(3)})
    result = stage.play(A, B, C, max_calls=2)
    assert [agent for agent, _ in stage.shown()] == ["A", "B"]
    assert (result.outcome, result.calls) == (Outcome.OVER_BUDGET, 2)
    assert result.turns[2].reply == Reply("", Outcome.OVER_BUDGET)


def test_a_budget_that_suffices_for_all_branches_starves_none() -> None:
    reflection = Reflection("R", B, iterations=2)
    stage = Stage({"A": box(1), "B": [box(n) for n in range(9)], "C": box(1)})
    result = stage.play(Ensemble("E", (A, reflection, C)), max_calls=7)
    assert result.calls == 7
    assert all(turn.reply.outcome is Outcome.OK for turn in result.turns)
