"""A design's shape in one word: what the mix of designs is reported by."""

from __future__ import annotations

from collections.abc import Iterator

from metaagentx.workflow.ir import Agent, Ensemble, Node, Workflow

SHAPES = ("single", "vote", "chain", "chain+vote", "tool", "other")


def shape(workflow: Workflow) -> str:
    """`tool` if any agent has tools; `other` if there is more than agents, votes and sequences; else what it is."""
    nodes = list(walk(workflow))
    if any(not isinstance(node, Agent | Ensemble | Workflow) for node in nodes):
        return "other"
    if any(isinstance(node, Agent) and node.tools for node in nodes):
        return "tool"
    chain = any(isinstance(node, Workflow) and len(node.steps) > 1 for node in nodes)
    vote = any(isinstance(node, Ensemble) for node in nodes)
    if chain:
        return "chain+vote" if vote else "chain"
    return "vote" if vote else "single"


def walk(node: Node) -> Iterator[Node]:
    """The node and all nodes inside sequences and votes."""
    yield node
    if isinstance(node, Workflow):
        for step in node.steps:
            yield from walk(step)
    elif isinstance(node, Ensemble):
        for member in (*node.agents, *((node.judge,) if node.judge else ())):
            yield from walk(member)
