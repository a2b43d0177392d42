"""What the names of a script are bound to while it is read: nodes under construction and other symbols.

Plain values (text, numbers, lists, tuples, dictionaries, ranges) are themselves; everything else is one of these.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from metaagentx.workflow.ir import Condition


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that a script may hold and pass on, but that means nothing here. `ignored`: calls are not read."""

    what: str
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """An imported module, of which only the attributes in the table can be used."""

    name: str


@dataclass(frozen=True, slots=True)
class Named:
    """A constructor or builtin of the table."""

    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A `def` or lambda of the script: read where a condition or route is wanted, never run."""

    node: ast.FunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the table, taken from its owner but not yet called."""

    owner: Any
    name: str


@dataclass(eq=False, slots=True)
class Registry:
    """A `ToolRegistry()`: the known tools that were registered with it, in order."""

    tools: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Step:
    """One `add_node`: `alias` is the name that a graph knows it by."""

    node: Draft
    at: ast.AST
    condition: Condition | None = None
    alias: str = ""


@dataclass(eq=False, slots=True)
class DraftEdge:
    """One edge of a graph; its ends are names or nodes, resolved when the graph is complete."""

    source: Any
    target: Any
    condition: Condition | None
    at: ast.AST


@dataclass(eq=False, slots=True)
class Draft:
    """A node under construction. `fields` are its checked keyword arguments; `steps` what was added later."""

    kind: str  # the constructor's name
    fields: dict[str, Any]
    at: ast.AST
    order: int  # drafts count from 0 in script order
    steps: list[Step] = field(default_factory=list)
    edges: list[DraftEdge] = field(default_factory=list)
    condition: Condition | None = None  # of a loop: when to go on
    entry: Any = None
    finish: list[tuple[Any, ast.AST]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.fields["name"])

    def children(self) -> Iterator[Draft]:
        """The nodes inside this one, in order."""
        for value in self.fields.values():
            if isinstance(value, Draft):
                yield value
            elif isinstance(value, tuple):
                yield from (part for part in value if isinstance(part, Draft))
            elif isinstance(value, dict):
                yield from (part for part in value.values() if isinstance(part, Draft))
        yield from (step.node for step in self.steps)

    def inside(self) -> Iterator[Draft]:
        """This node and, where they are found, those inside it: shared ones each time, but their insides once."""
        seen: set[int] = set()
        waiting = [self]
        while waiting:
            draft = waiting.pop()
            yield draft
            if id(draft) not in seen:
                seen.add(id(draft))
                waiting.extend(draft.children())
