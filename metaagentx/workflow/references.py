"""Which steps the tasks of a design refer to, and whether there are such steps before them."""

from __future__ import annotations

from typing import assert_never

from metaagentx.workflow.bounds import parts
from metaagentx.workflow.ir import (
    Agent,
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
        if isinstance(node, Agent):
            return {} if node.task is None else {name: node.name for name, _ in references(node.task)}
        found: dict[str, str] = {}
        for part, spoken in heard(node):
            names = {each.name for each in spoken}
            found |= {step: agent for step, agent in self.open(part).items() if step not in names}
        return found


def heard(node: Node) -> list[tuple[Node, tuple[Node, ...]]]:
    """Each node directly inside `node`, in order, with those beside it that it may refer to: the last to speak last."""
    inside = parts(node)
    match node:
        case Agent() | Reflection() | Router():
            return [(part, ()) for part in inside]
        case Ensemble():
            return [
                *((member, ()) for member in node.agents),
                *((judge, node.agents) for judge in inside[len(node.agents) :]),
            ]
        case Debate():
            return [(part, node.debaters) for part in inside]
        case Loop():  # of the turn before, and of this one
            return [(part, (*inside, *inside[:i])) for i, part in enumerate(inside)]
        case Graph():
            return [(part, inside) for part in inside]
        case Branch() | Workflow():
            return [(part, inside[:i]) for i, part in enumerate(inside)]
        case _:
            assert_never(node)
