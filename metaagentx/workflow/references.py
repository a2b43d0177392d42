"""Which steps the tasks of a design refer to, and whether there are such steps before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from metaagentx.workflow.ir import (
    Agent,
    AgentRule,
    Branch,
    Debate,
    Ensemble,
    Graph,
    Loop,
    Node,
    Reflection,
    Router,
    Workflow,
)
from metaagentx.workflow.template import QUESTION, references


def unknown_reference(workflow: Workflow) -> tuple[str, str] | None:
    """The first agent whose task refers to a step that has not spoken where it runs, and that step's name.

    In a sequence an agent may refer to the steps before it and before all that it is inside of; in a loop, graph or
    debate to all of its parts; a vote's judge to the members. Nodes shared between places are looked at once.
    """
    for step, agent in _Scopes().open(workflow).items():
        if step != QUESTION:
            return agent, step
    return None


class _Scopes:
    """What is referred to but not found inside a node, by identity: (step, the agent that refers to it)."""

    def __init__(self) -> None:
        self._known: dict[int, dict[str, str]] = {}

    def open(self, node: Node) -> dict[str, str]:
        if id(node) not in self._known:
            self._known[id(node)] = self._open(node)
        return self._known[id(node)]

    def _open(self, node: Node) -> dict[str, str]:
        match node:
            case Agent():
                return {} if node.task is None else {name: node.name for name, _ in references(node.task)}
            case Ensemble():
                judge = () if node.judge is None else (node.judge,)
                return self._all(node.agents) | self._all(judge, node.agents)
            case Reflection():
                return self._all((node.agent,) if node.critic is None else (node.agent, node.critic))
            case Debate():
                return self._all((*node.debaters, *(() if node.judge is None else (node.judge,))), node.debaters)
            case Router():
                chooser = (node.rule.agent,) if isinstance(node.rule, AgentRule) else ()
                return self._all((*chooser, *(route for _, route in node.routes)))
            case Loop():
                return self._all(node.body, node.body)
            case Graph():
                return self._all(node.nodes, node.nodes)
            case Branch():
                return self._sequence(node.body)
            case Workflow():
                return self._sequence(node.steps)
            case _:
                assert_never(node)

    def _all(self, nodes: Iterable[Node], spoken: Sequence[Node] = ()) -> dict[str, str]:
        names = {node.name for node in spoken}
        return {step: agent for node in nodes for step, agent in self.open(node).items() if step not in names}

    def _sequence(self, steps: Sequence[Node]) -> dict[str, str]:
        found: dict[str, str] = {}
        spoken: set[str] = set()
        for node in steps:
            found |= {step: agent for step, agent in self.open(node).items() if step not in spoken}
            spoken.add(node.name)
        return found
