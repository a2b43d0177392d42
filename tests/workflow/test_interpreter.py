"""What each kind of node asks, of whom, in which order, and what comes of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.bounds import bounds
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Agent, Debate, Ensemble, Loop, Reflection, Router, Workflow
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Call, Message, Outcome, Reply, ToolCall, ToolResult
from metaagentx.workflow.replay import Path, drive, record, replay
from tests.workflow.acting import Boxed, Stage
from tests.workflow.strategies import workflows

A, B, C, J = (Agent(name) for name in "ABCJ")


def box(answer: object) -> str:
    return f"so \\boxed{{{answer}}}"


# Agents in sequence.


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


def test_an_agent_with_a_task_sees_the_filled_task_and_nothing_else() -> None:
    stage = Stage({"A": box(3), "B": "nothing", "C": box(0)})
    stage.play(A, B, Agent("C", task="{A} - 7 {B}| {question} {A"))
    assert stage.shown()[2] == ("C", "3 - 7 | Q? {A")


def test_what_is_spliced_into_a_task_is_not_read_as_a_template() -> None:
    stage = Stage({"A": box("<B>"), "B": box(1)})
    stage.play(A, Agent("B", task="{A}"), question="{A}")
    assert stage.shown() == [("A", "{A}"), ("B", "<B>")]


def test_older_steps_are_left_out_where_the_room_ends_and_this_is_said() -> None:
    shown: list[str] = []

    def answer(path: Path, request: Call | ToolCall) -> Reply:
        assert isinstance(request, Call)
        shown.append(request.messages[-1].content)
        return Reply(request.agent * 30)

    process = run(Workflow("w", (A, B, C)), "Q?", Boxed(), wording=Wording(room=40), max_calls=9)
    drive(process, answer)
    assert shown[2] == f"Q?\n\n{Wording().left_out}\n\n[B]:\n{'B' * 30}\n\n{Wording().own_solution}"


def test_the_answer_is_the_last_one_of_the_last_message() -> None:
    assert Stage({"A": box(7), "B": box(5) + box(7) + box(5)}).play(A, B).answer == "5"


# Failures go on.


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        (Reply(""), "[A]: (no reply)"),
        (Reply("", Outcome.FAILED), "[A]: (no reply)"),
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


# Tools.

CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "1+1"}}</tool_call>'
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


# Ensembles.


def test_members_run_side_by_side_on_the_same_context_and_only_their_winner_is_seen_later() -> None:
    stage = Stage({"J": box(0), "A": box(5), "B": box(7), "C": box("7 ") + "!", "D": box(1)})
    result = stage.play(J, Ensemble("E", (A, B, C)), Agent("D"))
    context = "Q?\n\n[J]:\n0\n\nyours"
    assert stage.shown()[1:4] == [("A", context), ("B", context), ("C", context)]
    assert [path for _, path in stage.paths()[1:4]] == [(("member", index),) for index in range(3)]
    assert stage.shown()[4] == ("D", "Q?\n\n[J]:\n0\n\n[E]:\n7\n\nyours")
    assert result.answer == "1"


@pytest.mark.parametrize(
    ("answers", "strategy", "weights", "judged", "expected"),
    [
        (["5", "7", "7"], "majority_vote", None, False, box(7)),
        (["5", "7", "9"], "majority_vote", None, False, box(5)),
        (["5", "7", "7"], "majority_vote", None, True, box("J")),
        (["7", " 7", "7"], "majority_vote", None, True, box(7)),
        (["7", None, "7"], "majority_vote", None, True, box(7)),
        ([None, None, "7"], "majority_vote", None, False, box(7)),
        ([None, None, None], "majority_vote", None, False, "A says"),
        (["5", "7", "7"], "weighted_vote", (3.0, 1.0, 1.0), False, box(5)),
        (["5", "7", "7"], "weighted_vote", (2.0, 1.0, 1.0), False, box(5)),
        (["5", "7", "7"], "majority_vote", (3.0, 1.0, 1.0), False, box(7)),
        (["7", "7", "7"], "consensus", None, True, box("J")),
        ([None, None, None], "consensus", None, True, box("J")),
    ],
)
def test_a_vote_is_settled(answers: list, strategy: str, weights: tuple | None, judged: bool, expected: str) -> None:
    lines = {
        name: f"{name} says" if answer is None else box(answer) for name, answer in zip("ABC", answers, strict=True)
    }
    ensemble = Ensemble("E", (A, B, C), strategy, J if judged else None, weights)  # type: ignore[arg-type]
    assert Stage({**lines, "J": box("J")}).play(ensemble).text == expected


def test_the_judge_sees_all_members_and_speaks_for_the_ensemble() -> None:
    stage = Stage({"A": box(5), "B": box(7), "J": box(9), "C": box(1)})
    stage.play(Ensemble("E", (A, B), judge=J), C)
    assert stage.shown()[2:] == [("J", "Q?\n\n[A]:\n5\n\n[B]:\n7\n\njudge"), ("C", "Q?\n\n[E]:\n9\n\nyours")]


def test_the_first_member_that_replied_stands_where_nobody_has_an_answer() -> None:
    assert Stage({"A": "", "B": "well", "C": ""}).play(Ensemble("E", (A, B, C))).text == "well"


# Reflection.


def test_reflection_answers_criticises_and_refines_until_the_critic_accepts() -> None:
    stage = Stage({"A": [box(1), box(2)], "C": ["VERDICT: INCORRECT", "VERDICT: CORRECT"], "B": box(0)})
    result = stage.play(B, Reflection("R", A, C, iterations=5))
    before = "Q?\n\n[B]:\n0\n\n"
    assert stage.shown()[1:] == [
        ("A", before + "yours"),
        ("C", before + f"check {box(1)}"),
        ("A", before + f"fix {box(1)} given VERDICT: INCORRECT"),
        ("C", before + f"check {box(2)}"),
    ]
    assert result.answer == "2"


def test_reflection_stops_when_the_answer_stops_changing() -> None:
    stage = Stage({"A": [box(1), "again " + box("1 ")], "C": "hm"})
    assert stage.play(Reflection("R", A, C, iterations=5)).calls == 3


def test_without_a_critic_the_agent_is_its_own_and_iterations_bound_it() -> None:
    stage = Stage({"A": [box(1), "no", box(2), "no", box(3)]})
    result = stage.play(Reflection("R", A, iterations=2))
    assert (result.calls, result.answer) == (5, "3")
    assert {call.conversation for _, call in stage.asked} == set(range(5))


def test_a_prompt_without_a_place_for_the_response_gets_it_as_a_message() -> None:
    stage = Stage({"A": box(1), "C": "VERDICT: revise"})
    stage.play(Reflection("R", A, C, 1, reflection_prompt="Right? {x} {question}", refinement_prompt="Again."))
    assert stage.shown()[1:] == [
        ("C", "Q?\n\n[A]:\n1\n\nRight? {x} Q?"),
        ("A", "Q?\n\n[A]:\n1\n\n[C]:\nVERDICT: revise\n\nAgain."),
    ]


def test_a_refinement_that_fails_leaves_the_last_answer() -> None:
    stage = Stage({"A": [box(1), Reply("", Outcome.FAILED)], "C": "no"})
    assert stage.play(Reflection("R", A, C, 1)).answer == "1"


def test_history_shows_earlier_rounds() -> None:
    stage = Stage({"A": [box(1), box(2), box(3)], "C": ["bad one", "bad two"]})
    stage.play(Reflection("R", A, C, 2, include_history=True))
    assert stage.shown()[3] == ("C", f"Q?\n\n[A]:\n1\n\n[C]:\nbad one\n\ncheck {box(2)}")


# Debate.


def test_a_debate_is_parallel_in_each_round_and_the_judge_sees_only_the_last() -> None:
    stage = Stage({"A": [box(1), box(2)], "B": [box(3), box(4)], "J": box(5)})
    result = stage.play(Debate("D", (A, B), J, rounds=2))
    assert stage.shown() == [
        ("A", "Q?"),
        ("B", "Q?"),
        ("A", "Q?\n\n[A]:\n1\n\n[B]:\n3\n\ndebate"),
        ("B", "Q?\n\n[A]:\n1\n\n[B]:\n3\n\ndebate"),
        ("J", "Q?\n\n[A]:\n2\n\n[B]:\n4\n\nsettle"),
    ]
    assert [path for _, path in stage.paths()] == [
        (("member", 0),),
        (("member", 1),),
        (("member#2", 0),),
        (("member#2", 1),),
        (),
    ]
    assert result.answer == "5"


def test_without_a_judge_the_first_debater_settles() -> None:
    stage = Stage({"A": box(1), "B": box(3)})
    stage.play(Debate("D", (A, B), rounds=1))
    assert [agent for agent, _ in stage.shown()] == ["A", "B", "A"]


# Routers, loops, branches, graphs, workflows.


@pytest.mark.parametrize(
    ("rule", "said", "taken"),
    [
        (ir.KeywordRule((("prime", "x"), ("SUM", "y"))), "the sum of", "B"),
        (ir.KeywordRule((("prime", "x"), ("sum", "y"))), "sum of primes", "A"),
        (ir.KeywordRule((("prime", "x"),)), "other", "C"),
        (ir.ConditionRule(((ir.Contains("Z"), "x"), (ir.Contains("z"), "y"))), "z", "B"),
        (ir.AgentRule(Agent("J")), "x", "A"),
        (ir.AgentRule(Agent("J")), "Not x, rather Y.", "B"),
        (ir.AgentRule(Agent("J")), "\\boxed{y} or x", "B"),
        (ir.AgentRule(Agent("J")), "xy", "C"),
        (ir.AgentRule(Agent("J")), "", "C"),
    ],
)
def test_a_router_takes_one_route(rule: ir.KeywordRule, said: str, taken: str) -> None:
    stage = Stage({"A": box(1), "B": box(2), "C": box(3), "S": said, "J": said})
    stage.play(Agent("S"), Router("R", (("x", A), ("y", B), ("z", C)), rule, "z"))
    assert stage.shown()[-1][0] == taken
    if isinstance(rule, ir.AgentRule) and said:
        assert stage.shown()[1] == ("J", f"Q?\n\n[S]:\n{Boxed().shorten(said)}\n\nwhich of x, y, z")


def test_a_router_without_a_route_says_nothing() -> None:
    result = Stage({"A": box(1), "S": box(0)}).play(Agent("S"), Router("R", (("x", A),), ir.KeywordRule(())))
    assert (result.answer, result.calls) == ("0", 1)


def test_the_first_step_is_routed_by_the_question() -> None:
    stage = Stage({"A": box(1)})
    stage.play(Router("R", (("x", A),), ir.KeywordRule((("q?", "x"),))))
    assert stage.shown() == [("A", "Q?")]


def test_a_loop_repeats_until_its_condition_and_shows_the_latest_message_of_each_step() -> None:
    stage = Stage({"S": box(3), "A": [box(1), box(2), box(3), box(3)], "B": "b", "C": box(9)})
    stage.play(Agent("S"), Loop("L", (B, A), ir.AnswerAgrees(), 9), C)
    assert [agent for agent, _ in stage.shown()] == ["S", *"BA" * 4, "C"]
    assert stage.shown()[3] == ("B", "Q?\n\n[S]:\n3\n\n[B]:\nb\n\n[A]:\n1\n\nyours")
    assert stage.shown()[-1] == ("C", "Q?\n\n[S]:\n3\n\n[L]:\n3\n\nyours")


def test_a_loop_ends_after_its_iterations() -> None:
    assert Stage({"A": box(1)}).play(Loop("L", (A,), ir.Contains("never"), 3)).calls == 3


@pytest.mark.parametrize(("said", "calls"), [("VERDICT: accept", 2), ("VERDICT: reject", 1)])
def test_a_branch_runs_its_body_if_its_condition_holds(said: str, calls: int) -> None:
    stage = Stage({"A": said, "B": box(2)})
    assert stage.play(A, ir.Branch("X", ir.VerdictAccepts(), (B,))).calls == calls


def test_a_graph_follows_the_first_edge_that_matches_and_ends_at_a_finish() -> None:
    edges = (
        ir.Edge("A", "B", ir.Contains("go")),
        ir.Edge("A", "C"),
        ir.Edge("B", "A"),
        ir.Edge("C", "A"),
    )
    stage = Stage({"A": ["go", "stay"], "B": box(2), "C": box(3), "J": box(4)})
    result = stage.play(ir.Graph("G", (A, B, C), edges, "A", ("C",)), J)
    assert [agent for agent, _ in stage.shown()] == ["A", "B", "A", "C", "J"]
    assert stage.shown()[-1] == ("J", "Q?\n\n[G]:\n3\n\nyours")
    assert result.answer == "4"


def test_a_graph_turns_to_its_finish_before_its_steps_run_out() -> None:
    edges = (ir.Edge("A", "A", ir.Contains("go")), ir.Edge("A", "B"))
    stage = Stage({"A": "go", "B": box(2)})
    stage.play(ir.Graph("G", (A, B), edges, "A", ("B",), max_steps=4))
    assert [agent for agent, _ in stage.shown()] == ["A", "A", "A", "B"]


def test_a_nested_workflow_sees_what_came_before_and_speaks_with_one_voice() -> None:
    stage = Stage({"A": box(1), "B": box(2), "C": box(3), "J": box(4)})
    stage.play(A, Workflow("W", (B, C)), J)
    assert stage.shown()[2:] == [("C", "Q?\n\n[A]:\n1\n\n[B]:\n2\n\nyours"), ("J", "Q?\n\n[A]:\n1\n\n[W]:\n3\n\nyours")]


# Every design.


def chatter(seed: int):
    """Replies of all sorts, a function of the path, the agent and how often it was asked there."""
    sorts = (
        *(box(n) for n in range(3)), "", "so what", "VERDICT: CORRECT", "VERDICT: wrong", CALL,
        "<tool_call>{", "```python\n1\n```",
    )  # fmt: skip
    counts: dict[Path, int] = {}

    def answer(path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        counts[path] = counts.get(path, 0) + 1
        draw = random.Random(f"{seed} {path} {counts[path]}")
        if isinstance(request, ToolCall):
            return ToolResult("out", ok=draw.random() < 0.5)
        text = draw.choice(sorts)
        outcome = draw.choice((Outcome.OK, Outcome.CUT)) if text else draw.choice((Outcome.FAILED, Outcome.TOO_LONG))
        return Reply(text, outcome, draw.randrange(9))

    return answer


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(workflows(), st.integers(0, 10**6), st.sampled_from([3, 17, 10**6]))
def test_no_order_of_answering_changes_a_run_and_no_run_exceeds_its_bounds(
    design: Workflow, seed: int, most: int
) -> None:
    if bounds(design).model_calls > 500:
        return
    result, answers = record(run(design, "Q?", Boxed(), max_calls=most), chatter(seed))
    shuffled = drive(run(design, "Q?", Boxed(), max_calls=most), chatter(seed), order=random.Random(seed))
    assert shuffled == result
    assert replay(run(design, "Q?", Boxed(), max_calls=most), answers) == result
    assert result.calls <= min(most, bounds(design).model_calls)
    assert result.tokens == sum(turn.reply.tokens for turn in result.turns)
    sampled = [turn for turn in result.turns if turn.reply.outcome is not Outcome.OVER_BUDGET]
    assert len(sampled) == result.calls
    if most == 10**6:
        assert len(sampled) == len(result.turns)


def test_a_record_of_another_run_is_refused() -> None:
    _, answers = record(run(Workflow("w", (A,)), "Q?", Boxed(), max_calls=9), chatter(0))
    with pytest.raises(ValueError, match=r"number 1 at .*'B'"):
        replay(run(Workflow("w", (A, B)), "Q?", Boxed(), max_calls=9), answers)
