"""What a design says: every text in it that an agent may be shown or that is looked for in what agents say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from metaagentx.workflow.bounds import parts
from metaagentx.workflow.ir import (
    Agent,
    AllOf,
    AnyOf,
    Branch,
    Condition,
    ConditionRule,
    Contains,
    Graph,
    KeywordRule,
    Loop,
    Node,
    Not,
    Reflection,
    Router,
    Workflow,
)

_NUMBERED = re.compile(r"#[0-9]+$")


def texts(workflow: Workflow, given: Set[str] = frozenset()) -> Iterator[str]:
    """The names, prompts, tasks and conditions of `workflow`, each node once; without the prompts in `given`.

    What conditions look for counts, though nobody is told: a loop that goes on until the true answer comes knows it.
    Numbers that say how to run it (turns, rounds, weights, the #2 of a second name) are not said to anyone.
    `given`: prompts that no designer wrote, a palette's.
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
            case Router(rule=rule):
                yield from (name for name, _ in node.routes)
                if isinstance(rule, KeywordRule):
                    yield from (keyword for keyword, _ in rule.keywords)
                elif isinstance(rule, ConditionRule):
                    yield from (text for condition, _ in rule.cases for text in _sought(condition))
            case Loop(until=condition) | Branch(condition=condition):
                yield from _sought(condition)
            case Graph():
                yield from (text for edge in node.edges if edge.condition for text in _sought(edge.condition))


def _sought(condition: Condition) -> Iterator[str]:
    """The texts that `condition` looks for."""
    match condition:
        case Contains(text):
            yield text
        case Not(inner):
            yield from _sought(inner)
        case AllOf(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from _sought(each)
