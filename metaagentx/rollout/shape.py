"""A design's shape in one word: what the mix of designs is reported by."""

from __future__ import annotations

from collections.abc import Iterator

from metaagentx.workflow.bounds import parts
from metaagentx.workflow.ir import Agent, Ensemble, Node, Workflow

SHAPES = ("single", "vote", "chain", "chain+vote", "tool", "other")


def shape(workflow: Workflow) -> str:
    """`other` if there is more than agents, votes and sequences; else `tool` if any agent has tools; else what it is."""
    nodes = list(walk(workflow))
    if not all(isinstance(node, Agent | Ensemble | Workflow) for node in nodes):
        return "other"
    if any(isinstance(node, Agent) and node.tools for node in nodes):
        return "tool"
    chain = any(isinstance(node, Workflow) and len(node.steps) > 1 for node in nodes)
    vote = any(isinstance(node, Ensemble) for node in nodes)
    if chain:
        return "chain+vote" if vote else "chain"
    return "vote" if vote else "single"


def walk(node: Node) -> Iterator[Node]:
    """The node and everything inside it."""
    yield node
    for part in parts(node):
        yield from walk(part)
