"""Static bounds against the interpreter itself: every run of small designs of every kind."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.bounds import bounds
from metaagentx.workflow.check import check
from tests.workflow.exhaustive import PER_CALL, Choices, runs, worst

MOST = 3000  # runs of one design
YES, NO = ir.Contains("yes"), ir.Contains("no")
ALWAYS, NEVER = ir.AllOf(()), ir.AnyOf(())
A, B, C = (ir.Agent(name) for name in "abc")
ARMED = ir.Agent("armed", tools=("calculator",), max_turns=2)
BRANCH = ir.Branch("o", YES, (C,))
NEVER_RUNS = ir.Branch("n", NEVER, (A, B, C))


def router(rule: ir.KeywordRule | ir.ConditionRule | ir.AgentRule, default: str | None = None) -> ir.Router:
    return ir.Router("o", (("r0", A), ("r1", ir.Workflow("v", (B, C)))), rule, default)


def graph(*edges: tuple[str, str, ir.Condition | None], finish: str = "c", most: int = 4) -> ir.Graph:
    return ir.Graph("g", (A, B, C), tuple(ir.Edge(*edge) for edge in edges), "a", (finish,), most)


SMALL: dict[str, ir.Node] = {
    "agent": A,
    "agent with tools": ARMED,
    "ensemble": ir.Ensemble("e", (A, B)),
    "ensemble with a judge": ir.Ensemble("e", (A, B, ARMED), judge=C),
    "ensemble of one with a judge": ir.Ensemble("e", (A,), judge=C),
    "ensemble of which one never speaks": ir.Ensemble("e", (A, NEVER_RUNS), judge=C),
    "weighted vote": ir.Ensemble("e", (A, B), "weighted_vote", C, (1.0, 2.0)),
    "consensus": ir.Ensemble("e", (A, ARMED), "consensus", C),
    "consensus of one": ir.Ensemble("e", (A,), "consensus", C),
    "vote of workflows": ir.Ensemble("e", (ir.Workflow("v", (A, B)), C), judge=ARMED),
    "reflection on itself": ir.Reflection("r", A, iterations=3),
    "reflection with a critic": ir.Reflection("r", A, ARMED, 1),
    "reflection with a silent critic": ir.Reflection("r", A, NEVER_RUNS, 2),
    "debate": ir.Debate("d", (A, B), rounds=2),
    "debate with a judge": ir.Debate("d", (A, ir.Workflow("v", (B, C))), ARMED, 1),
    "router by keywords": router(ir.KeywordRule((("yes", "r0"), ("no", "r1")))),
    "router by keywords with a default": router(ir.KeywordRule((("yes", "r0"),)), "r1"),
    "route behind a keyword within its own": router(ir.KeywordRule((("no", "r0"), ("not", "r1")))),
    "route behind the empty keyword": router(ir.KeywordRule((("", "r0"), ("no", "r1"))), "r1"),
    "router without cases": router(ir.KeywordRule(()), "r0"),
    "router by conditions": router(ir.ConditionRule(((YES, "r0"), (NO, "r1")))),
    "route behind a condition that holds": router(ir.ConditionRule(((ALWAYS, "r0"), (NO, "r1"))), "r1"),
    "route whose condition never holds": router(ir.ConditionRule(((NEVER, "r1"), (NO, "r0")))),
    "router by an agent": router(ir.AgentRule(ARMED)),
    "loop": ir.Loop("l", (A, B), YES, 2),
    "loop until the answer agrees": ir.Loop("l", (A,), ir.AnswerAgrees(), 3),
    "loop that holds at once": ir.Loop("l", (A,), ir.Not(NEVER), 3),
    "loop that never holds": ir.Loop("l", (A,), NEVER, 3),
    "branch": ir.Workflow("v", (A, BRANCH)),
    "branch on a verdict": ir.Workflow("v", (A, dataclasses.replace(BRANCH, condition=ir.VerdictAccepts()))),
    "branch never taken": ir.Workflow("v", (A, NEVER_RUNS)),
    "branch always taken": ir.Branch("b", ir.AnyOf((ALWAYS, YES)), (A,)),
    "graph": graph(("a", "b", None), ("b", "c", None)),
    "graph with a cycle": graph(("a", "b", YES), ("a", "c", None), ("b", "a", None), most=5),
    "graph with a way back that is too long": graph(("a", "b", YES), ("a", "c", None), ("b", "a", None), most=3),
    "graph with an edge behind one that holds": graph(("a", "c", ALWAYS), ("a", "b", None), ("b", "c", None)),
    "graph with an edge that never holds": graph(("a", "b", NEVER), ("a", "c", None), ("b", "c", None)),
    "graph with a dead end": graph(("a", "b", YES), ("a", "c", None)),
}


@pytest.mark.parametrize("name", SMALL)
def test_bounds_are_reached_by_a_run_and_exceeded_by_none(name: str) -> None:
    workflow = ir.Workflow("w", (SMALL[name],) if name.startswith("agent") else (ir.Agent("z"), SMALL[name]))
    assert check(workflow, ir.Limits()) is None
    found, tokens = worst(workflow, MOST)
    assert found == bounds(workflow)
    assert tokens == bounds(workflow).tokens(PER_CALL)


agents = st.sampled_from([A, B, C, ir.Agent("armed", tools=("calculator",), max_turns=1)])


def composites(inner: st.SearchStrategy[ir.Node]) -> st.SearchStrategy[ir.Node]:
    some = st.lists(inner, min_size=1, max_size=2, unique_by=lambda node: node.name).map(tuple)
    maybe, few, free = st.none() | agents, st.integers(1, 2), st.sampled_from([YES, NO, ir.Not(YES), ALWAYS, NEVER])
    cases = st.sampled_from([ir.KeywordRule((("yes", "r0"), ("no", "r0"))), ir.ConditionRule(((YES, "r0"),))])
    routes = inner.map(lambda node: (("r0", node),))
    return st.one_of(
        st.builds(ir.Ensemble, st.just("e"), some, st.just("majority_vote"), maybe),
        st.builds(ir.Reflection, st.just("r"), inner, maybe, few),
        st.builds(ir.Debate, st.just("d"), some, maybe, few),
        st.builds(
            ir.Router, st.just("o"), routes, cases | st.builds(ir.AgentRule, agents), st.sampled_from([None, "r0"])
        ),
        st.builds(ir.Loop, st.just("l"), some, free, few),
        st.builds(ir.Branch, st.just("b"), free, some),
        st.builds(ir.Workflow, st.just("w"), some),
    )


@settings(max_examples=40, deadline=None)
@given(composites(st.one_of(agents, composites(agents))))
def test_no_run_of_a_nested_design_exceeds_its_bounds(node: ir.Node) -> None:
    workflow = ir.Workflow("w", (ir.Agent("z"), node))
    stated = bounds(workflow)
    assume(stated.model_calls <= 8)
    for cost, chain in runs(workflow, 5000):
        assert cost.agents <= stated.agent_calls
        assert cost.replies <= stated.model_calls
        assert chain <= stated.critical_path
        assert cost.tokens <= stated.tokens(PER_CALL)


def test_every_combination_of_choices_is_tried_once() -> None:
    choices: Choices | None = Choices()
    seen = []
    while choices is not None:
        first = choices.choose(2)
        seen.append((first, choices.choose(3) if first else None))
        choices = choices.following()
    assert seen == [(0, None), (1, 0), (1, 1), (1, 2)]
