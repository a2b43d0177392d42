"""What a design says: every text in it that an agent may be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from metaagentx.workflow.bounds import parts
from metaagentx.workflow.ir import Agent, Node, Reflection, Router, Workflow

_NUMBERED = re.compile(r"#[0-9]+$")


def texts(workflow: Workflow, given: Set[str] = frozenset()) -> Iterator[str]:
    """The names, prompts and tasks of `workflow`, each node once; without the prompts in `given`, a palette's own.

    Numbers that say how to run it (turns, rounds, weights, the #2 of a second name) are not said to anyone.
    """
    seen: set[int] = set()
    waiting: list[Node] = [workflow]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        waiting.extend(parts(node))
        yield _NUMBERED.sub("", node.name)
        match node:
            case Agent():
                if node.system_prompt not in given:
                    yield node.system_prompt
                yield node.task or ""
            case Reflection():
                yield node.reflection_prompt or ""
                yield node.refinement_prompt or ""
            case Router():
                yield from (name for name, _ in node.routes)
