"""Which nodes run, and when: routers, loops, branches, graphs and nested workflows."""

from __future__ import annotations

import pytest

from metaagentx.workflow import ir
from metaagentx.workflow.ir import Agent, Loop, Router, Workflow
from tests.workflow.acting import Boxed, Stage, box

A, B, C, J = (Agent(name) for name in "ABCJ")


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
