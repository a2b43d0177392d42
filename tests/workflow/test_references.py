"""A task may refer to what has spoken before it, and to nothing else, however the design was written."""

from __future__ import annotations

from itertools import pairwise

import pytest

from metaagentx.workflow import ir
from metaagentx.workflow.check import check
from metaagentx.workflow.references import unknown_reference

A, B = ir.Agent("a"), ir.Agent("b")
AFTER_A, AFTER_B = ir.Agent("x", task="{a} of {question}"), ir.Agent("y", task="{b}, \\frac{1}{2}")


def cycle(*nodes: ir.Node) -> ir.Graph:
    names = [node.name for node in nodes]
    edges = tuple(ir.Edge(*pair) for pair in pairwise(names))
    return ir.Graph("g", nodes, edges, names[0], (names[-1],))


KNOWN: dict[str, tuple[ir.Node, ...]] = {
    "an earlier step": (A, B, AFTER_A, AFTER_B),
    "a step before what it is inside of": (A, ir.Workflow("v", (B, ir.Branch("c", ir.AnswerAgrees(), (AFTER_A,))))),
    "an earlier step of the same workflow inside": (ir.Workflow("v", (A, AFTER_A)),),
    "a later step of the same loop": (ir.Loop("l", (AFTER_A, A), ir.AnswerAgrees()),),
    "a node of the same graph": (cycle(AFTER_A, A),),
    "the members that a judge judges": (ir.Ensemble("e", (A, B), judge=AFTER_A),),
    "another debater": (ir.Debate("d", (A, AFTER_A), AFTER_A),),
}
UNKNOWN: dict[str, tuple[tuple[ir.Node, ...], str]] = {
    "nothing": ((AFTER_A,), "a"),
    "a later step": ((AFTER_A, A), "a"),
    "itself": ((ir.Agent("a", task="{a}"),), "a"),
    "a step inside another": ((ir.Workflow("v", (A, B)), AFTER_A), "a"),
    "a member beside it": ((ir.Ensemble("e", (A, AFTER_A)),), "a"),
    "a route beside it": ((ir.Router("r", (("p", A), ("q", AFTER_A)), ir.KeywordRule(()), "p"),), "a"),
    "the agent of its own reflection": ((ir.Reflection("r", A, AFTER_A),), "a"),
    "a later step of a branch": ((ir.Branch("c", ir.AnswerAgrees(), (AFTER_B, B)),), "b"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_task_may_refer_to(name: str) -> None:
    assert unknown_reference(ir.Workflow("w", KNOWN[name])) is None


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_task_may_not_refer_to(name: str) -> None:
    steps, step = UNKNOWN[name]
    workflow = ir.Workflow("w", steps)
    assert unknown_reference(workflow) in (("x", step), ("y", step), ("a", step))
    fault = check(workflow, ir.Limits())
    assert fault is not None
    assert fault.refusal is ir.Refusal.UNKNOWN_NAME
