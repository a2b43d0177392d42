"""The kinds of nodes of the short form: which fields each has, and what is refused in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from metaagentx.workflow import ir
from metaagentx.workflow.ir import Agent, Ensemble, Node, Refusal, Workflow
from metaagentx.workflow.short_nodes import Kind, NodeReader

T = TypeVar("T")


def _agent(reader: NodeReader, name: str) -> Agent:
    reader.count_agents(1, reader.at)
    found = reader.fields(
        "agent",
        (),
        prompt=reader.text_value,
        tools=lambda: reader.several(lambda: reader.name("a tool's name")),
        turns=reader.between(1, reader.limits.turns, "turns"),
        task=reader.template,
    )
    tools = reader.existing(found.get("tools", ()), found.get("@tools", found["@"]))
    agent = Agent(name, found.get("prompt", ""), tools, task=found.get("task"))
    return replace(agent, max_turns=found["turns"]) if "turns" in found else agent


_STRATEGIES = {"majority_vote": "majority_vote", "weighted_vote": "weighted_vote", "consensus": "consensus"}


def _vote(reader: NodeReader, name: str) -> Ensemble:
    members: list[str] = []

    def judge() -> Node:
        mark = len(reader.open)
        node = reader.single()
        reader.resolve(mark, members)
        return node

    found = reader.fields(
        "vote",
        ("agents",),
        agents=reader.nodes(members, refusal=Refusal.EMPTY_ENSEMBLE),
        by=reader.one_of(_STRATEGIES, "the strategy of a vote"),
        judge=judge,
        weights=lambda: tuple(reader.several(lambda: reader.number("a weight"))),
    )
    weights = found.get("weights")
    if weights is not None and (len(weights) != len(members) or not all(0 <= each < math.inf for each in weights)):
        reader.refuse(
            Refusal.BAD_VALUE, f"one finite weight of 0 or above a member is needed: {len(members)}", found["@weights"]
        )
    strategy = found.get("by", "majority_vote")
    if strategy == "consensus" and "judge" not in found:
        reader.refuse(Refusal.MISSING_JUDGE, "a consensus needs a judge", found["@by"])
    return Ensemble(name, found["agents"], strategy, found.get("judge"), weights)


def _reflect(reader: NodeReader, name: str) -> ir.Reflection:
    found = reader.fields(
        "reflect",
        ("agent",),
        agent=reader.single,
        critic=reader.single,
        rounds=reader.between(1, reader.limits.iterations, "rounds"),
        critique=reader.text_value,
        refine=reader.text_value,
        history=reader.one_of({"yes": True, "no": False}, "history"),
    )
    return ir.Reflection(
        name,
        found["agent"],
        found.get("critic"),
        found.get("rounds", 2),
        found.get("critique"),
        found.get("refine"),
        found.get("history", False),
    )


def _debate(reader: NodeReader, name: str) -> ir.Debate:
    debaters: list[str] = []
    mark = len(reader.open)
    found = reader.fields(
        "debate",
        ("debaters",),
        debaters=reader.nodes(debaters, refusal=Refusal.EMPTY_ENSEMBLE),
        judge=reader.single,
        rounds=reader.between(1, reader.limits.iterations, "rounds"),
    )
    reader.resolve(mark, debaters)
    return ir.Debate(name, found["debaters"], found.get("judge"), found.get("rounds", 2))


def _route(reader: NodeReader, name: str) -> ir.Router:
    names: list[str] = []
    targets: list[tuple[str, int]] = []

    def target() -> str:
        at = reader.skip()
        targets.append((reader.name("a route"), at))
        return targets[-1][0]

    def route() -> tuple[str, Node]:
        at = reader.skip()
        names.append(reader.name("a route"))
        if names[-1] in names[:-1]:
            reader.refuse(Refusal.BAD_VALUE, f"the route {names[-1][:80]!r} is named twice", at)
        reader.expect(":", "after a route's name")
        return names[-1], reader.single()

    found = reader.fields(
        "route",
        ("by", "routes"),
        by=lambda: _rule(reader, target),
        routes=lambda: reader.several(route),
        default=target,
    )
    if not names:
        reader.refuse(Refusal.EMPTY_WORKFLOW, "at least one route is needed here", found["@routes"])
    for each, at in targets:
        reader.target(names, each, at)
    return ir.Router(name, tuple(found["routes"]), found["by"], found.get("default"))


def _rule(reader: NodeReader, target: Callable[[], str]) -> ir.KeywordRule | ir.ConditionRule | ir.AgentRule:
    at = reader.skip()
    word = reader.name("a rule: keywords, cases or ask")

    def leads(read: Callable[[], T]) -> Callable[[], tuple[T, str]]:
        def pair() -> tuple[T, str]:
            value = read()
            reader.expect(">", "before a route")
            return value, target()

        return pair

    if word == "keywords":
        return ir.KeywordRule(tuple(reader.several(leads(reader.text_value))))
    if word == "cases":
        return ir.ConditionRule(tuple(reader.several(leads(reader.condition))))
    if word != "ask":
        reader.refuse(Refusal.BAD_VALUE, f"a rule is keywords[...], cases[...] or ask(...), not {word[:80]!r}", at)
    reader.expect("(", "after 'ask'")
    at = reader.skip()
    agent = reader.single()
    if not isinstance(agent, Agent):
        reader.refuse(Refusal.BAD_VALUE, "only an agent can be asked for a route", at)
    reader.expect(")", "after the agent")
    return ir.AgentRule(agent)


def _loop(reader: NodeReader, name: str) -> ir.Loop:
    body: list[str] = []
    mark = len(reader.open)
    found = reader.fields(
        "loop",
        ("body", "until"),
        body=reader.nodes(body, refusal=Refusal.EMPTY_WORKFLOW),
        until=reader.condition,
        most=reader.between(1, reader.limits.iterations, "iterations"),
    )
    reader.resolve(mark, body)
    return ir.Loop(name, found["body"], found["until"], found.get("most", 5))


def _branch(reader: NodeReader, name: str) -> ir.Branch:
    body = reader.nodes([], refusal=Refusal.EMPTY_WORKFLOW, sequence=True)
    found = reader.fields("branch", ("when", "body"), when=reader.condition, body=body)
    return ir.Branch(name, found["when"], found["body"])


def _graph(reader: NodeReader, name: str) -> ir.Graph:
    names: list[str] = []
    targets: list[tuple[str, int]] = []
    mark = len(reader.open)

    def target() -> str:
        at = reader.skip()
        targets.append((reader.name("a node's name"), at))
        return targets[-1][0]

    def edge() -> ir.Edge:
        source = target()
        reader.expect(">", "after an edge's source")
        goal = target()
        return ir.Edge(source, goal, reader.condition() if reader.takes("if ") else None)

    found = reader.fields(
        "graph",
        ("nodes", "entry", "finish"),
        nodes=reader.nodes(names, refusal=Refusal.EMPTY_WORKFLOW),
        edges=lambda: reader.several(edge),
        entry=target,
        finish=lambda: reader.several(target),
        most=reader.between(1, reader.limits.steps, "steps"),
    )
    for each, at in targets:
        reader.target(names, each, at)
    reader.resolve(mark, names)
    return ir.Graph(
        name,
        found["nodes"],
        tuple(found.get("edges", ())),
        found["entry"],
        tuple(found["finish"]),
        found.get("most", 50),
    )


def _workflow(reader: NodeReader, name: str) -> Workflow:
    steps = reader.nodes([], refusal=Refusal.EMPTY_WORKFLOW, sequence=True)
    return Workflow(name, reader.fields("workflow", ("steps",), steps=steps)["steps"])


KINDS: Mapping[str, Kind] = {
    "agent": _agent,
    "vote": _vote,
    "reflect": _reflect,
    "debate": _debate,
    "route": _route,
    "loop": _loop,
    "branch": _branch,
    "graph": _graph,
    "workflow": _workflow,
}
