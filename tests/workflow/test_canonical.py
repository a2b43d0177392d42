"""The key of a design ignores what no run could show, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.canonical import canonical, key
from metaagentx.workflow.check import check
from metaagentx.workflow.script import parse_script
from tests.workflow.scripts import ACCEPTED, TOOLS, only
from tests.workflow.strategies import workflows

A, B = ir.Agent("a", "Solve it."), ir.Agent("b", "Check it.")


def design(script: str) -> ir.Workflow:
    result = parse_script(script, ir.Limits(), TOOLS)
    assert isinstance(result, ir.Design)
    return result.workflow


def test_key_is_sixteen_hexadecimal_digits() -> None:
    assert len(key(only(A))) == 16
    int(key(only(A)), 16)


def test_key_is_the_same_in_every_release() -> None:
    assert key(only(ir.Agent("a"))) == "e35ed7289626c248"


def test_names_do_not_matter_where_references_follow() -> None:
    first = ir.Workflow("w", (A, replace(B, task="{a} - 7 of {question}")))
    second = ir.Workflow("v", (replace(A, name="z"), replace(B, name="a", task="{z} - 7 of {question}")))
    assert key(first) == key(second)
    assert key(first) != key(ir.Workflow("w", (A, replace(B, task="{question} - 7 of {a}"))))


def test_a_step_may_have_the_name_of_the_whole() -> None:
    def named(whole: str) -> ir.Workflow:
        return ir.Workflow(whole, (A, replace(B, task="{a} - 7")))

    assert key(named("a")) == key(named("w"))
    assert check(canonical(named("a")), ir.Limits()) is None


def test_a_reference_is_to_the_step_of_its_own_scope() -> None:
    def named(member: str) -> ir.Workflow:
        vote = ir.Ensemble("a", (replace(A, name=member),))
        return ir.Workflow("w", (ir.Reflection("r", replace(B, name=member)), vote, replace(B, task="{a} - 7")))

    assert key(named("a")) == key(named("m"))
    assert check(canonical(named("a")), ir.Limits()) is None


def test_names_of_a_graph_and_its_routes_do_not_matter() -> None:
    def graph(p: str, q: str) -> ir.Graph:
        edges = (ir.Edge(p, q), ir.Edge(q, p, ir.VerdictAccepts()))
        return ir.Graph("g", (replace(A, name=p), replace(B, name=q)), edges, p, (q, p))

    def router(p: str, q: str) -> ir.Router:
        return ir.Router("o", ((p, A), (q, B)), ir.KeywordRule((("Sum", q),)), p)

    assert key(only(graph("a", "b"))) == key(only(graph("y", "x")))
    assert key(only(router("a", "b"))) == key(only(router("y", "x")))


def test_names_of_routes_matter_where_an_agent_says_them() -> None:
    def router(name: str) -> ir.Router:
        return ir.Router("o", ((name, A),), ir.AgentRule(B))

    assert key(only(router("sum"))) != key(only(router("search")))


def test_white_space_and_case_of_prompts_and_the_order_of_tools_do_not_matter() -> None:
    first = ir.Agent("a", "Solve  IT.\n", ("search", "calculator"), 3)
    second = ir.Agent("a", "solve it.", ("calculator", "search"), 3)
    assert key(only(first)) == key(only(second))


def test_turns_matter_only_with_tools() -> None:
    assert key(only(A)) == key(only(replace(A, max_turns=3)))
    armed = replace(A, tools=("search",))
    assert key(only(armed)) != key(only(replace(armed, max_turns=3)))


def test_defaults_are_explicit() -> None:
    assert key(only(ir.Reflection("r", A))) == key(only(ir.Reflection("r", A, A)))
    assert key(only(ir.Debate("d", (A, B)))) == key(only(ir.Debate("d", (A, B), A)))
    plain = ir.Ensemble("e", (A, B), "weighted_vote")
    assert key(only(plain)) == key(only(replace(plain, weights=(1.0, 1.0))))
    assert key(only(replace(plain, strategy="majority_vote", weights=(1.0, 2.0)))) == key(
        only(replace(plain, strategy="majority_vote"))
    )


YES, NO, LOUD = ir.Contains("yes"), ir.Contains("no"), ir.Contains("YES", True)


@pytest.mark.parametrize(
    ("written", "otherwise"),
    [
        (ir.Not(ir.Not(YES)), YES),
        (ir.AllOf((ir.AnyOf((YES,)),)), YES),
        (ir.AllOf((YES, ir.AllOf((NO, ir.Contains(""))))), ir.AllOf((YES, NO))),
        (ir.AnyOf((YES, ir.AllOf((NO, ir.Not(ir.AllOf(())))))), YES),
        (ir.AnyOf((NO, ir.Not(ir.AnyOf(())))), ir.AllOf(())),
        (LOUD, ir.Contains("yes", True)),
    ],
)
def test_how_a_condition_is_written_does_not_matter(written: ir.Condition, otherwise: ir.Condition) -> None:
    def designs(condition: ir.Condition) -> Iterator[ir.Node]:
        a, b = ir.Agent("a"), ir.Agent("b")
        yield ir.Loop("l", (a,), condition)
        yield ir.Branch("l", condition, (a,))
        yield ir.Graph("l", (a, b), (ir.Edge("a", "b", condition), ir.Edge("a", "a")), "a", ("b",))
        yield ir.Router("l", (("x", a), ("y", b)), ir.ConditionRule(((condition, "x"),)), "y")

    for one, other, third in zip(designs(written), designs(otherwise), designs(ir.Contains("YES")), strict=True):
        assert key(ir.Workflow("w", (one,))) == key(ir.Workflow("w", (other,)))
        assert key(ir.Workflow("w", (one,))) != key(ir.Workflow("w", (third,)))


def test_a_workflow_nested_as_a_single_step_is_flattened() -> None:
    flat = ir.Workflow("w", (A, B))
    assert key(only(flat)) == key(flat)
    assert key(ir.Workflow("w", (only(A), B))) == key(flat)
    asked = ir.Workflow("w", (A, replace(B, task="{a}!")))
    assert key(ir.Workflow("w", (only(A, "v"), replace(B, task="{v}!")))) == key(asked)
    assert key(ir.Workflow("w", (flat, A))) != key(ir.Workflow("w", (A, B, A)))


def test_designs_that_differ_have_different_keys() -> None:
    ensemble = ir.Ensemble("e", (A, B))
    loop = ir.Loop("l", (A,), ir.AnswerAgrees())
    different: list[ir.Node] = [
        *(A, B, replace(A, tools=("search",)), replace(A, task="{question}"), replace(A, task="{question}?")),
        *(ensemble, replace(ensemble, agents=(B, A)), replace(ensemble, agents=(A, B, B))),
        *(replace(ensemble, judge=A), replace(ensemble, strategy="consensus", judge=A)),
        replace(ensemble, strategy="weighted_vote", weights=(1.0, 2.0)),
        *(ir.Reflection("r", A), ir.Reflection("r", A, B), ir.Reflection("r", A, iterations=1)),
        *(ir.Reflection("r", A, reflection_prompt=""), ir.Reflection("r", A, refinement_prompt="")),
        ir.Reflection("r", A, include_history=True),
        *(ir.Debate("d", (A, B)), ir.Debate("d", (A, B), B), ir.Debate("d", (A, B), rounds=1)),
        *(loop, replace(loop, max_iterations=2), replace(loop, until=ir.Not(ir.AnswerAgrees()))),
        *(replace(loop, until=ir.Contains("yes")), replace(loop, until=ir.Contains("Yes"))),
        replace(loop, until=ir.Contains("yes", True)),
        ir.Branch("c", ir.AnswerAgrees(), (A,)),
        ir.Workflow("v", (A, B)),
        ir.Workflow("v", (A, A)),
    ]
    for first, second in combinations(different, 2):
        assert key(only(first)) != key(only(second)), (first, second)


def test_every_script_has_a_key_of_its_own() -> None:
    keys = {key(design(script)) for script, _ in ACCEPTED.values()}
    assert len(keys) == len({meant for _, meant in ACCEPTED.values()})  # some mean the same


def test_a_workflow_of_one_step_in_a_graph_keeps_the_name_that_its_edges_use() -> None:
    inner = ir.Workflow("solver", (ir.Agent("a"),))
    nodes = (ir.Agent("a"), inner)
    graph = ir.Graph("g", nodes, (ir.Edge("a", "solver"),), entry="a", finish=("solver",), max_steps=2)
    once = canonical(ir.Workflow("w", (graph,)))
    assert canonical(once) == once
    plain = ir.Graph("g", (ir.Agent("a"), ir.Agent("b")), (ir.Edge("a", "b"),), entry="a", finish=("b",), max_steps=2)
    assert key(ir.Workflow("w", (graph,))) == key(ir.Workflow("w", (plain,)))


@settings(max_examples=30, deadline=None)
@given(workflows())
def test_canonical_form_is_its_own_canonical_form(workflow: ir.Workflow) -> None:
    if check(workflow, ir.Limits(model_calls=10**9)) is None:
        once = canonical(workflow)
        assert canonical(once) == once
        assert check(once, ir.Limits(model_calls=10**9)) is None


@settings(max_examples=20, deadline=None)
@given(workflows(), st.sampled_from(["prefix-", "Ü"]))
def test_renaming_every_agent_keeps_the_key(workflow: ir.Workflow, prefix: str) -> None:
    if check(workflow, ir.Limits(model_calls=10**9)) is None:
        assert key(renamed(workflow, prefix)) == key(workflow)  # type: ignore[arg-type]


def renamed(node: ir.Node, prefix: str) -> ir.Node:
    """`node` with `prefix` before the names of all nodes, also where tasks refer to them."""

    def all_of(nodes: tuple[ir.Node, ...]) -> tuple[ir.Node, ...]:
        return tuple(renamed(inner, prefix) for inner in nodes)

    node = replace(node, name=prefix + node.name)
    match node:
        case ir.Agent(task=str() as task):
            return replace(node, task=re.sub(r"\{(?!question\})(\w+)\}", rf"{{{prefix}\1}}", task))
        case ir.Ensemble():
            return replace(node, agents=all_of(node.agents), judge=node.judge and renamed(node.judge, prefix))
        case ir.Reflection():
            return replace(node, agent=renamed(node.agent, prefix), critic=node.critic and renamed(node.critic, prefix))
        case ir.Debate():
            return replace(node, debaters=all_of(node.debaters), judge=node.judge and renamed(node.judge, prefix))
        case ir.Router():
            return replace(node, routes=tuple((name, renamed(route, prefix)) for name, route in node.routes))
        case ir.Loop() | ir.Branch():
            return replace(node, body=all_of(node.body))
        case ir.Workflow():
            return replace(node, steps=all_of(node.steps))
        case ir.Graph():
            edges = tuple(replace(e, source=prefix + e.source, target=prefix + e.target) for e in node.edges)
            finish = tuple(prefix + name for name in node.finish)
            return replace(node, nodes=all_of(node.nodes), edges=edges, entry=prefix + node.entry, finish=finish)
    return node
