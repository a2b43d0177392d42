"""The canonical form of a design: two designs with the same key differ in nothing that a run could show."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, assert_never

from metaagentx.workflow.bounds import parts
from metaagentx.workflow.conditions import ALWAYS, simplified
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
from metaagentx.workflow.references import heard

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def canonical(workflow: Workflow) -> Workflow:
    """`workflow` with names replaced in order (`n0`, `n1`, ...) and everything immaterial normalised.

    Prompts: white space collapsed, case folded; tasks: white space collapsed, their references renamed. Tools sorted;
    turns of agents without tools 1; default judges, critics and weights made explicit; conditions written in one way;
    a nested workflow of one step, and one that is its parent's only step, is flattened. Routes are named by position
    unless an agent names them.
    `workflow` must have passed `check`.
    """
    workflow = _distinct(workflow, {}, "s0", (f"s{number}" for number in itertools.count(1)))
    flat = _flatten(workflow)
    root = flat if isinstance(flat, Workflow) else Workflow(workflow.name, (flat,))
    explicit = _explicit(root)
    names: dict[str, str] = {}
    for index, node in enumerate(_preorder(explicit)):
        names.setdefault(node.name, f"n{index}")
    for outer, inner in _absorbed(workflow):
        names.setdefault(outer, names.get(inner, inner))
    result = _Renaming(names).node(explicit)
    assert isinstance(result, Workflow)
    return result


def _distinct(node: Any, known: Mapping[str, str], name: str, fresh: Iterator[str]) -> Any:
    """`node` and all that is inside it under names of their own: the same name may be another step elsewhere.

    `known`: what references to the steps that may be referred to become.
    """
    if isinstance(node, Agent):
        return replace(node, name=name, task=None if node.task is None else _renamed(node.task, known))
    found = heard(node)
    names = {id(part): next(fresh) for part, _ in found}
    inner = iter(
        [
            _distinct(part, {**known, **{each.name: names[id(each)] for each in spoken}}, names[id(part)], fresh)
            for part, spoken in found
        ]
    )
    renamed: Any = replace(_map(node, lambda part: next(inner)), name=name)
    return _rename_ends(node, renamed) if isinstance(node, Graph) else renamed


def _renamed(task: str, names: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: f"{{{names.get(match[1], match[1])}}}", task)


def key(workflow: Workflow) -> str:
    """16 hexadecimal digits that identify `canonical(workflow)`: a prefix of the SHA-256 of its JSON."""
    text = json.dumps(_plain(canonical(workflow)), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """IR as JSON: every record a list of its kind and its fields in order."""
    if is_dataclass(value):
        return [type(value).__name__, *(_plain(getattr(value, field.name)) for field in fields(value))]
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _preorder(node: Node) -> list[Node]:
    return [node, *(inner for part in parts(node) for inner in _preorder(part))]


def _absorbed(node: Node) -> list[tuple[str, str]]:
    """The workflows that flattening removes below or at `node`, each with the name of the node it gives way to."""
    found = [pair for part in parts(node) for pair in _absorbed(part)]
    for part in parts(node):
        if isinstance(part, Workflow) and (
            len(part.steps) == 1 or (isinstance(node, Workflow) and len(parts(node)) == 1)
        ):
            found.append((part.name, _result(part).name))
    return found


def _result(node: Node) -> Node:
    """The node whose message is `node`'s."""
    while isinstance(node, Workflow):
        node = node.steps[-1]
    return node


def _flatten(node: Node) -> Node:
    if isinstance(node, Graph):  # its edges know its nodes by name
        return replace(node, nodes=tuple(replace(_flatten(inner), name=inner.name) for inner in node.nodes))
    if not isinstance(node, Workflow):
        return _map(node, _flatten)
    steps = tuple(_flatten(step) for step in node.steps)
    while len(steps) == 1 and isinstance(steps[0], Workflow):
        steps = steps[0].steps
    return steps[0] if len(steps) == 1 else replace(node, steps=steps)


def _explicit(node: Node) -> Node:
    """Defaults filled in, and what never matters set to one value."""
    match node:
        case Agent():
            return node if node.tools else replace(node, max_turns=1)
        case Ensemble():
            weights = node.weights or (1.0,) * len(node.agents) if node.strategy == "weighted_vote" else None
            node = replace(node, weights=weights)
        case Reflection(critic=None):
            node = replace(node, critic=node.agent)
        case Debate(judge=None):
            node = replace(node, judge=node.debaters[0])
        case Router(rule=ConditionRule(cases)):
            node = replace(node, rule=ConditionRule(tuple((simplified(case), route) for case, route in cases)))
        case Loop():
            node = replace(node, until=simplified(node.until))
        case Branch():
            node = replace(node, condition=simplified(node.condition))
        case Graph():
            node = replace(node, edges=tuple(_plainly(edge) for edge in node.edges))
    return _map(node, _explicit)


def _plainly(edge: Edge) -> Edge:
    """`edge` with its condition in the one way to write it; one that always holds is none."""
    condition = ALWAYS if edge.condition is None else simplified(edge.condition)
    return replace(edge, condition=None if condition == ALWAYS else condition)


def _map(node: Node, change: Any) -> Node:
    """`node` with `change` applied to each node directly inside it."""

    def each(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(change(inner) for inner in nodes)

    def one(inner: Node | None) -> Node | None:
        return None if inner is None else change(inner)

    match node:
        case Agent():
            return node
        case Ensemble():
            return replace(node, agents=each(node.agents), judge=one(node.judge))
        case Reflection():
            return replace(node, agent=change(node.agent), critic=one(node.critic))
        case Debate():
            return replace(node, debaters=each(node.debaters), judge=one(node.judge))
        case Router():
            rule = AgentRule(change(node.rule.agent)) if isinstance(node.rule, AgentRule) else node.rule
            return replace(node, rule=rule, routes=tuple((name, change(route)) for name, route in node.routes))
        case Loop() | Branch():
            return replace(node, body=each(node.body))
        case Graph():
            return replace(node, nodes=each(node.nodes))
        case Workflow():
            return replace(node, steps=each(node.steps))
        case _:
            assert_never(node)


class _Renaming:
    """Replaces names in preorder and normalises texts. `names`: what references in tasks become."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._count = 0

    def node(self, node: Node) -> Node:
        name = f"n{self._count}"
        self._count += 1
        renamed = replace(_map(node, self.node), name=name)
        match renamed:
            case Agent():
                return replace(
                    renamed,
                    system_prompt=_folded(renamed.system_prompt),
                    tools=tuple(sorted(set(renamed.tools))),
                    task=None if renamed.task is None else self._task(renamed.task),
                )
            case Reflection():
                return replace(
                    renamed,
                    reflection_prompt=_folded(renamed.reflection_prompt),
                    refinement_prompt=_folded(renamed.refinement_prompt),
                )
            case Router():
                return _rename_routes(renamed)
            case Graph():
                assert isinstance(node, Graph)
                return _rename_ends(node, renamed)
        return renamed

    def _task(self, task: str) -> str:
        return " ".join(_renamed(task, self._names).split())


def _folded(prompt: str | None) -> Any:
    return None if prompt is None else " ".join(prompt.split()).casefold()


def _rename_routes(router: Router) -> Router:
    if isinstance(router.rule, AgentRule):
        return router
    names = {name: f"r{index}" for index, (name, _) in enumerate(router.routes)}
    rule: KeywordRule | ConditionRule
    if isinstance(router.rule, KeywordRule):
        rule = KeywordRule(tuple((keyword.casefold(), names[route]) for keyword, route in router.rule.keywords))
    else:
        rule = ConditionRule(tuple((condition, names[route]) for condition, route in router.rule.cases))
    return replace(
        router,
        rule=rule,
        routes=tuple((names[name], route) for name, route in router.routes),
        default=None if router.default is None else names[router.default],
    )


def _rename_ends(before: Graph, after: Graph) -> Graph:
    names = {old.name: new.name for old, new in zip(before.nodes, after.nodes, strict=True)}
    return replace(
        after,
        edges=tuple(Edge(names[edge.source], names[edge.target], edge.condition) for edge in before.edges),
        entry=names[before.entry],
        finish=tuple(sorted(names[name] for name in before.finish)),
    )
