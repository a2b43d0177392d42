"""What a design can cost at most, computed without running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from metaagentx.workflow.conditions import constant
from metaagentx.workflow.ir import (
    Agent,
    AgentRule,
    Branch,
    ConditionRule,
    Debate,
    Edge,
    Ensemble,
    Graph,
    KeywordRule,
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

    def tokens(self, per_call: int) -> int:
        """The most tokens that a run can generate where no reply has more than `per_call`.

        Exact: the run with the most replies is one whose replies all have as many.
        """
        return self.model_calls * per_call

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
    """The exact worst case of `workflow`: some run takes as much of each, and none takes more.

    Replies may be anything, and a condition that is not constant may go either way whenever it is asked.
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
            voters = sum(of(member).model_calls > 0 for member in node.agents)
            can_split = node.strategy == "consensus" or voters > 1
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
            open_routes = _open_routes(node)
            for name, route in node.routes:
                branch |= of(route) if name in open_routes else NOTHING
            return choice + branch
        case Loop():
            most = 1 if constant(node.until) else node.max_iterations
            return _in_turn(of(step) for step in node.body) * most
        case Branch():
            return NOTHING if constant(node.condition) is False else _in_turn(of(step) for step in node.body)
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


def _open_routes(router: Router) -> set[str]:
    """The routes that can be taken: a rule takes the first keyword or condition that holds."""
    routes: set[str] = set()
    match router.rule:
        case KeywordRule(keywords):
            tried: list[str] = []
            for keyword, route in keywords:
                if not any(earlier in keyword.casefold() for earlier in tried):
                    routes.add(route)
                tried.append(keyword.casefold())
            falls_through = "" not in tried
        case ConditionRule(cases):
            values = [constant(condition) for condition, _ in cases]
            first = values.index(True) if True in values else len(values)
            routes |= {
                route for value, (_, route) in zip(values[: first + 1], cases, strict=False) if value is not False
            }
            falls_through = first == len(values)
        case AgentRule():
            routes |= {name for name, _ in router.routes}
            falls_through = True
    return routes | {router.default} if falls_through and router.default is not None else routes


def live_edges(graph: Graph) -> dict[str, list[Edge]]:
    """The edges that a run can take, by source: the first that matches wins, so none after one that always does."""
    live: dict[str, list[Edge]] = {node.name: [] for node in graph.nodes}
    closed: set[str] = set(graph.finish)
    for edge in graph.edges:
        holds = True if edge.condition is None else constant(edge.condition)
        if edge.source not in closed and holds is not False:
            live[edge.source].append(edge)
            if holds:
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


def _longest_walk(graph: Graph, cost: Mapping[str, Bounds]) -> Bounds:
    """The longest walk from the entry that ends at a finish within `max_steps` nodes, by dynamic programming."""
    targets = {source: {edge.target for edge in edges} for source, edges in live_edges(graph).items()}
    known: dict[tuple[int, ...], int] = {}  # where all agents are plain, the three measures are one

    def longest(measure: Callable[[Bounds], int]) -> int:
        weight = {name: measure(bound) for name, bound in cost.items()}
        key = tuple(weight.values())
        if key not in known:
            known[key] = _heaviest(graph, targets, weight)
        return known[key]

    return Bounds(
        longest(lambda bound: bound.agent_calls),
        longest(lambda bound: bound.model_calls),
        longest(lambda bound: bound.critical_path),
    )


def _heaviest(graph: Graph, targets: Mapping[str, set[str]], weight: Mapping[str, int]) -> int:
    finish = set(graph.finish)
    ending = {graph.entry: weight[graph.entry]}  # the heaviest walk of the current length, by its last node
    best = 0
    for _ in range(graph.max_steps):
        following: dict[str, int] = {}
        for name, walk in ending.items():
            if name in finish:
                best = max(best, walk)
            for target in targets[name]:
                if walk + weight[target] > following.get(target, -1):
                    following[target] = walk + weight[target]
        ending = following
    return best


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
