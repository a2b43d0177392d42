"""Whether a complete design makes sense and stays within its limits."""

from __future__ import annotations

from metaagentx.workflow.bounds import bounds, parts, steps_to_finish
from metaagentx.workflow.ir import (
    Agent,
    Branch,
    ConditionRule,
    Debate,
    Diagnosis,
    Ensemble,
    Graph,
    KeywordRule,
    Limits,
    Loop,
    Node,
    Reflection,
    Refusal,
    Router,
    Workflow,
)
from metaagentx.workflow.references import unknown_reference

MAX_DEPTH = 16  # nodes inside nodes, the workflow itself included
MAX_CASES = 64  # of one router
MAX_EDGES = 256  # of one graph


def check(workflow: Workflow, limits: Limits) -> Diagnosis | None:
    """The first fault of `workflow`, or None where it can run.

    Works on any IR, however it was written; nodes shared between places are looked at once.
    """
    agents: dict[int, int] = {}
    fault = _walk(workflow, limits, agents, 1, {})
    if fault is not None:
        return fault
    reference = unknown_reference(workflow)
    if reference is not None:
        agent, step = reference
        return Diagnosis(
            Refusal.UNKNOWN_NAME,
            f"the task of agent {agent!r} refers to {step!r}, but no step of this name has spoken before it",
        )
    if agents[id(workflow)] > limits.agents:
        return _too_large(f"the design has {agents[id(workflow)]} agents; at most {limits.agents} are allowed")
    calls = bounds(workflow).model_calls
    if calls > limits.model_calls:
        return _too_large(f"a run can take {calls} model calls; at most {limits.model_calls} are allowed")
    return None


def _walk(node: Node, limits: Limits, agents: dict[int, int], depth: int, heights: dict[int, int]) -> Diagnosis | None:
    """Checks `node` and what it holds; fills `agents` (agents inside) and `heights` (levels inside) by identity."""
    if depth + heights.get(id(node), 1) - 1 > MAX_DEPTH:
        return _too_large(f"nodes may be nested at most {MAX_DEPTH} deep")
    if id(node) in agents:
        return None
    fault = _fault(node, limits)
    if fault is not None:
        return fault
    inner = parts(node)
    for part in inner:
        fault = _walk(part, limits, agents, depth + 1, heights)
        if fault is not None:
            return fault
    agents[id(node)] = isinstance(node, Agent) + sum(agents[id(part)] for part in inner)
    heights[id(node)] = 1 + max((heights[id(part)] for part in inner), default=0)
    return None


def _fault(node: Node, limits: Limits) -> Diagnosis | None:
    """What is wrong with `node` itself."""
    who = f"{type(node).__name__.lower()} {node.name!r}"
    match node:
        case Agent():
            return _count(f"max_turns of {who}", node.max_turns, limits.turns)
        case Ensemble():
            if not node.agents:
                return Diagnosis(Refusal.EMPTY_ENSEMBLE, f"{who} has no members; give at least one")
            if node.strategy == "consensus" and node.judge is None:
                return Diagnosis(Refusal.MISSING_JUDGE, f"{who} decides by consensus and needs a judge")
            if node.weights is not None and len(node.weights) != len(node.agents):
                return _bad(f"{who} has {len(node.agents)} members but {len(node.weights)} weights")
        case Reflection():
            return _count(f"iterations of {who}", node.iterations, limits.iterations)
        case Debate():
            if not node.debaters:
                return Diagnosis(Refusal.EMPTY_ENSEMBLE, f"{who} has no debaters; give at least one")
            return _count(f"rounds of {who}", node.rounds, limits.iterations)
        case Router():
            return _routes_fault(node, who)
        case Loop():
            if not node.body:
                return Diagnosis(Refusal.EMPTY_WORKFLOW, f"{who} has no steps; add at least one")
            return _count(f"max_iterations of {who}", node.max_iterations, limits.iterations)
        case Branch():
            if not node.body:
                return Diagnosis(Refusal.EMPTY_WORKFLOW, f"{who} has no steps; add at least one")
        case Graph():
            return _graph_fault(node, who, limits)
        case Workflow():
            if not node.steps:
                return Diagnosis(Refusal.EMPTY_WORKFLOW, f"{who} has no steps; add at least one node")
    return None


def _routes_fault(router: Router, who: str) -> Diagnosis | None:
    names = [name for name, _ in router.routes]
    if not names:
        return _bad(f"{who} has no routes; give at least one")
    if len(set(names)) < len(names):
        return _bad(f"{who} names a route twice")
    targets: list[str] = []
    match router.rule:
        case KeywordRule(keywords):
            targets = [target for _, target in keywords]
        case ConditionRule(cases):
            targets = [target for _, target in cases]
    if len(targets) > MAX_CASES:
        return _too_large(f"{who} has {len(targets)} cases; at most {MAX_CASES} are allowed")
    if router.default is not None:
        targets.append(router.default)
    return _first_unknown(targets, names, f"route of {who}")


def _graph_fault(graph: Graph, who: str, limits: Limits) -> Diagnosis | None:
    names = [node.name for node in graph.nodes]
    if not names:
        return Diagnosis(Refusal.EMPTY_WORKFLOW, f"{who} has no nodes; add at least one")
    if len(set(names)) < len(names):
        return _bad(f"{who} names a node twice")
    if len(graph.edges) > MAX_EDGES:
        return _too_large(f"{who} has {len(graph.edges)} edges; at most {MAX_EDGES} are allowed")
    ends = [end for edge in graph.edges for end in (edge.source, edge.target)]
    fault = _first_unknown([graph.entry, *graph.finish, *ends], names, f"node of {who}")
    if fault is not None:
        return fault
    fault = _count(f"max_steps of {who}", graph.max_steps, limits.steps)
    if fault is None and steps_to_finish(graph).get(graph.entry, graph.max_steps + 1) > graph.max_steps:
        return _bad(f"{who} must reach a finish point from {graph.entry!r} within {graph.max_steps} steps")
    return fault


def _first_unknown(wanted: list[str], known: list[str], what: str) -> Diagnosis | None:
    there = set(known)
    for name in wanted:
        if name not in there:
            right = ", ".join(map(repr, known[:8]))
            return Diagnosis(Refusal.UNKNOWN_TARGET, f"{name!r} is no {what}; it has {right}")
    return None


def _count(what: str, value: int, most: int) -> Diagnosis | None:
    if value < 1:
        return _bad(f"{what} is {value}; it must be at least 1")
    return _too_large(f"{what} is {value}; at most {most} is allowed") if value > most else None


def _bad(message: str) -> Diagnosis:
    return Diagnosis(Refusal.BAD_VALUE, message)


def _too_large(message: str) -> Diagnosis:
    return Diagnosis(Refusal.TOO_LARGE, message)
