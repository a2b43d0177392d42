"""From the drafts of a script to the immutable workflow that it runs."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any, Literal, cast

from metaagentx.workflow.check import MAX_DEPTH
from metaagentx.workflow.conditions import negate
from metaagentx.workflow.drafts import Draft, Registry
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
    Refusal,
    Router,
    Workflow,
)
from metaagentx.workflow.refused import Refused


def freeze(root: Draft, at: ast.AST) -> tuple[Workflow, list[tuple[str, ast.AST]]]:
    """The workflow of `root`, run at `at`, and what was accepted but changed: (message, where)."""
    freezer = _Freezer(at)
    freezer.name_agents(root)
    node = freezer.node(root, 1)
    workflow = node if isinstance(node, Workflow) else Workflow(node.name, (node,))
    return workflow, freezer.remarks


class _Freezer:
    def __init__(self, at: ast.AST) -> None:
        self.at = at
        self.remarks: list[tuple[str, ast.AST]] = []
        self._names: dict[int, str] = {}
        self._frozen: dict[int, Node] = {}

    def name_agents(self, root: Draft) -> None:
        """Gives the agents that `root` reaches distinct names, in script order."""
        seen: dict[int, Draft] = {}
        waiting = [root]
        while waiting:
            draft = waiting.pop()
            if id(draft) not in seen:
                seen[id(draft)] = draft
                waiting.extend(draft.children())
        agents = sorted((draft for draft in seen.values() if draft.kind == "AgentNode"), key=lambda draft: draft.order)
        taken = {draft.name for draft in agents}
        counts: dict[str, int] = {}
        for draft in agents:
            name = draft.name
            if draft.name in counts:
                while name in taken:
                    counts[draft.name] += 1
                    name = f"{draft.name}#{counts[draft.name]}"
                taken.add(name)
                self.remarks.append((f"a second agent named {draft.name!r} is shown as {name!r}", draft.at))
            counts.setdefault(draft.name, 1)
            self._names[id(draft)] = name

    def node(self, draft: Draft, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Refused(Refusal.TOO_LARGE, f"nodes may be nested at most {MAX_DEPTH} deep", self.at)
        if id(draft) not in self._frozen:
            self._frozen[id(draft)] = self._build(draft, depth + 1)
        return self._frozen[id(draft)]

    def _build(self, draft: Draft, depth: int) -> Node:
        fields = dict(draft.fields)
        match draft.kind:
            case "AgentNode":
                registry = fields.pop("tool_registry", None)
                tools = tuple(registry.tools) if isinstance(registry, Registry) else ()
                return Agent(**{**fields, "name": self._names[id(draft)], "tools": tools})
            case "EnsembleNode":
                return Ensemble(
                    draft.name,
                    self._nodes(fields["agents"], depth),
                    cast(Literal["majority_vote"], fields.get("strategy", "majority_vote")),
                    self._optional(fields.get("consensus_agent"), depth),
                    fields.get("weights"),
                )
            case "ReflectionNode":
                named = {"num_iterations": "iterations", "critic_agent": "critic"}
                built = {named.get(key, key): self._value(value, depth) for key, value in fields.items()}
                return Reflection(**built)
            case "DebateNode":
                built = {("rounds" if key == "num_rounds" else key): value for key, value in fields.items()}
                return Debate(**{key: self._value(value, depth) for key, value in built.items()})
            case "RouterNode" | "create_keyword_router":
                return self._router(draft, depth)
            case "LoopWorkflow":
                return self._loop(draft, depth)
            case "AgentGraph":
                return self._graph(draft, depth)
        return self._workflow(draft, depth)

    def _router(self, draft: Draft, depth: int) -> Router:
        fields = draft.fields
        if draft.kind == "create_keyword_router":
            routes = {key: self.node(node, depth) for key, node in fields["keyword_routes"].items()}
            rule = KeywordRule(tuple((key, key) for key in routes))
            default = None
            if "default_node" in fields:
                default = "default"
                while default in routes:
                    default += "#"
                routes[default] = self.node(fields["default_node"], depth)
            return Router(draft.name, tuple(routes.items()), rule, default)
        routes = {key: self.node(node, depth) for key, node in fields["routes"].items()}
        if "routing_agent" in fields:
            chooser = cast(Agent, self.node(fields["routing_agent"], depth))
            return Router(draft.name, tuple(routes.items()), AgentRule(chooser), fields.get("default_route"))
        return Router(draft.name, tuple(routes.items()), ConditionRule(fields["cases"]), fields.get("default_route"))

    def _loop(self, draft: Draft, depth: int) -> Loop:
        if not draft.steps:
            raise Refused(Refusal.EMPTY_WORKFLOW, f"loop {draft.name!r} has no steps; add at least one node", self.at)
        if draft.condition is None:
            raise Refused(Refusal.BAD_VALUE, f"loop {draft.name!r} needs set_loop_condition(...)", self.at)
        body = self._nodes(tuple(step.node for step in draft.steps), depth)
        most = {"max_iterations": draft.fields["max_iterations"]} if "max_iterations" in draft.fields else {}
        return Loop(draft.name, body, negate(draft.condition), **most)

    def _workflow(self, draft: Draft, depth: int) -> Workflow:
        if not draft.steps:
            raise Refused(
                Refusal.EMPTY_WORKFLOW, f"workflow {draft.name!r} has no steps; add at least one node", self.at
            )
        nodes = self._nodes(tuple(step.node for step in draft.steps), depth)
        steps = [
            node if step.condition is None else Branch(node.name, step.condition, (node,))
            for step, node in zip(draft.steps, nodes, strict=True)
        ]
        return Workflow(draft.name, tuple(steps))

    def _graph(self, draft: Draft, depth: int) -> Graph:
        if not draft.steps:
            raise Refused(Refusal.EMPTY_WORKFLOW, f"graph {draft.name!r} has no nodes; add at least one", self.at)
        nodes = self._nodes(tuple(step.node for step in draft.steps), depth)
        names: dict[Any, str] = {}
        for step, node in zip(draft.steps, nodes, strict=True):
            for key in (step.alias, step.node.name, node.name):
                names.setdefault(key, node.name)
            names[id(step.node)] = node.name

        def resolve(end: Any, at: ast.AST) -> str:
            key = id(end) if isinstance(end, Draft) else end
            if key not in names:
                shown = end.name if isinstance(end, Draft) else end
                known = ", ".join(repr(node.name) for node in nodes[:8])
                raise Refused(
                    Refusal.UNKNOWN_TARGET, f"{shown!r} is no node of graph {draft.name!r}; it has {known}", at
                )
            return names[key]

        edges = tuple(
            Edge(resolve(edge.source, edge.at), resolve(edge.target, edge.at), edge.condition) for edge in draft.edges
        )
        entry = nodes[0].name if draft.entry is None else resolve(*draft.entry)
        sources = {edge.source for edge in edges}
        finish = tuple(dict.fromkeys(resolve(*end) for end in draft.finish)) or tuple(
            node.name for node in nodes if node.name not in sources
        )
        most = {"max_steps": draft.fields["max_steps"]} if "max_steps" in draft.fields else {}
        return Graph(draft.name, nodes, edges, entry, finish, **most)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, Draft):
            return self.node(value, depth)
        return self._nodes(value, depth) if isinstance(value, tuple) else value

    def _nodes(self, drafts: tuple[Draft, ...], depth: int) -> tuple[Node, ...]:
        """The nodes of `drafts`, side by side or one after the other: a name that comes again gets a number."""
        found: list[Node] = []
        taken: set[str] = set()
        numbers: dict[str, int] = {}
        for draft in drafts:
            node = self.node(draft, depth)
            name, number = node.name, numbers.get(node.name, 2)
            while name in taken:
                name, number = f"{node.name}#{number}", number + 1
            numbers[node.name] = number
            if name != node.name:
                self.remarks.append((f"a second step named {node.name!r} is shown as {name!r}", draft.at))
                node = replace(node, name=name)
            taken.add(name)
            found.append(node)
        return tuple(found)

    def _optional(self, draft: Draft | None, depth: int) -> Node | None:
        return None if draft is None else self.node(draft, depth)
