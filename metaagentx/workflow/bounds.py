"""What a design can cost at most, computed without running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import assert_never

from metaagentx.workflow.ir import (
    Agent,
    AgentRule,
    Branch,
    Debate,
    Edge,
    Ensemble,
    Graph,
    Loop,
    Node,
    Reflection,
    Router,
    Workflow,
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that any run of a design can take.

    agent_calls: how often an agent is asked. model_calls: replies of the model, tool turns included.
    critical_path: the longest chain of replies of which each needs the one before.
    """

    agent_calls: int
    model_calls: int
    critical_path: int

    def __add__(self, other: Bounds) -> Bounds:
        """One after the other."""
        return Bounds(
            self.agent_calls + other.agent_calls,
            self.model_calls + other.model_calls,
            self.critical_path + other.critical_path,
        )

    def __mul__(self, times: int) -> Bounds:
        """`times` times in a row."""
        return Bounds(self.agent_calls * times, self.model_calls * times, self.critical_path * times)

    def __or__(self, other: Bounds) -> Bounds:
        """Either of the two, whichever costs more in each respect."""
        return Bounds(
            max(self.agent_calls, other.agent_calls),
            max(self.model_calls, other.model_calls),
            max(self.critical_path, other.critical_path),
        )

    def __and__(self, other: Bounds) -> Bounds:
        """Both side by side."""
        return Bounds(
            self.agent_calls + other.agent_calls,
            self.model_calls + other.model_calls,
            max(self.critical_path, other.critical_path),
        )


NOTHING = Bounds(0, 0, 0)


def bounds(workflow: Workflow) -> Bounds:
    """The exact worst case of `workflow`, every condition taken to be able to go either way.

    A node that occurs in several places is computed once, so nesting costs no more than the IR's own size.
    """
    known: dict[int, Bounds] = {}

    def of(node: Node) -> Bounds:
        if id(node) not in known:
            known[id(node)] = _bounds_of(node, of)
        return known[id(node)]

    return of(workflow)


def _bounds_of(node: Node, of: Callable[[Node], Bounds]) -> Bounds:
    match node:
        case Agent():
            replies = node.max_turns + 1 if node.tools else 1
            return Bounds(1, replies, replies)
        case Ensemble():
            members = _together(of(member) for member in node.agents)
            can_split = node.strategy == "consensus" or len(node.agents) > 1
            return members + of(node.judge) if node.judge is not None and can_split else members
        case Reflection():
            critic = node.agent if node.critic is None else node.critic
            return of(node.agent) + (of(critic) + of(node.agent)) * node.iterations
        case Debate():
            judge = node.debaters[0] if node.judge is None else node.judge
            return _together(of(debater) for debater in node.debaters) * node.rounds + of(judge)
        case Router():
            choice = of(node.rule.agent) if isinstance(node.rule, AgentRule) else NOTHING
            branch = NOTHING
            for _, route in node.routes:
                branch |= of(route)
            return choice + branch
        case Loop():
            return _in_turn(of(step) for step in node.body) * node.max_iterations
        case Branch():
            return _in_turn(of(step) for step in node.body)
        case Graph():
            return _longest_walk(node, {inner.name: of(inner) for inner in node.nodes})
        case Workflow():
            return _in_turn(of(step) for step in node.steps)
        case _:
            assert_never(node)


def _in_turn(parts: Iterator[Bounds]) -> Bounds:
    return sum(parts, NOTHING)


def _together(parts: Iterator[Bounds]) -> Bounds:
    total = NOTHING
    for part in parts:
        total &= part
    return total


def live_edges(graph: Graph) -> dict[str, list[Edge]]:
    """The edges that a run can take, by source: the first that matches wins, so none after an unconditional one."""
    live: dict[str, list[Edge]] = {node.name: [] for node in graph.nodes}
    closed: set[str] = set(graph.finish)
    for edge in graph.edges:
        if edge.source not in closed:
            live[edge.source].append(edge)
            if edge.condition is None:
                closed.add(edge.source)
    return live


def steps_to_finish(graph: Graph) -> dict[str, int]:
    """The fewest steps from each node to a finish, both counted; a node from which none is reached is absent."""
    before: dict[str, list[str]] = {node.name: [] for node in graph.nodes}
    for source, edges in live_edges(graph).items():
        for edge in edges:
            before[edge.target].append(source)

    steps = dict.fromkeys(graph.finish, 1)
    frontier = list(steps)
    while frontier:
        reached = [(source, steps[name] + 1) for name in frontier for source in before[name] if source not in steps]
        frontier = list(dict(reached))
        steps.update(reached)
    return steps


def _longest_walk(graph: Graph, cost: dict[str, Bounds]) -> Bounds:
    """The longest walk from the entry that ends at a finish within `max_steps` nodes, by dynamic programming."""
    live = live_edges(graph)
    finish = set(graph.finish)
    ending = {graph.entry: cost[graph.entry]}  # the longest walk of the current length, by its last node
    longest = NOTHING
    for _ in range(graph.max_steps):
        following: dict[str, Bounds] = {}
        for name, walk in ending.items():
            if name in finish:
                longest |= walk
            for edge in live[name]:
                following[edge.target] = following.get(edge.target, NOTHING) | (walk + cost[edge.target])
        ending = following
    return longest


def parts(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside `node`, in order; an agent has none."""
    match node:
        case Agent():
            return ()
        case Ensemble():
            return node.agents if node.judge is None else (*node.agents, node.judge)
        case Reflection():
            return (node.agent,) if node.critic is None else (node.agent, node.critic)
        case Debate():
            return node.debaters if node.judge is None else (*node.debaters, node.judge)
        case Router():
            chooser = (node.rule.agent,) if isinstance(node.rule, AgentRule) else ()
            return (*chooser, *(route for _, route in node.routes))
        case Loop() | Branch():
            return node.body
        case Graph():
            return node.nodes
        case Workflow():
            return node.steps
        case _:
            assert_never(node)
