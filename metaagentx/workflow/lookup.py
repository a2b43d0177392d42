"""What a name means that a script did not bind, and an attribute of what it has."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection
from typing import Any

from metaagentx.workflow import methods
from metaagentx.workflow.drafts import Draft, Method, Module, Named, Opaque, Registry
from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.surface import FORBIDDEN, IGNORED, MODULES, NODE_METHODS

_KNOWN = ", ".join(sorted(methods.FUNCTIONS - {"dedent", "hasattr"}))


def unbound(node: ast.Name, wants_node: bool) -> Opaque | Named:
    """A builtin of the table; any other name is refused, as an agent where one is wanted."""
    name = node.id
    if name in IGNORED:
        return Opaque(name, ignored=True)
    if name in methods.FUNCTIONS - {"dedent"}:
        return Named(name)
    if name in FORBIDDEN:
        message = f"{name} would need execution; a design only builds and runs a workflow"
        raise Refused(Refusal.FORBIDDEN, message, node)
    if hasattr(builtins, name):
        message = f"the builtin {name} is not part of the language; there is {_KNOWN}"
        raise Refused(Refusal.UNSUPPORTED, message, node)
    if wants_node:
        raise Refused(Refusal.UNBOUND_AGENT, f"{name!r} is not bound to a node; build it before", node)
    raise Refused(Refusal.UNKNOWN_NAME, f"{name!r} is not bound; assign it before", node)


def attribute(owner: Any, node: ast.Attribute) -> Any:
    """The attribute `node` of `owner`, if it is in the table."""
    name = node.attr
    match owner:
        case Opaque():
            if not name.startswith("_"):
                return owner
        case Module("textwrap") if name == "dedent":
            return Named("dedent")
        case Module(module) if name in MODULES[module]:
            return Opaque(f"{module}.{name}", ignored=module == "logging" or name == "exit")
        case Draft() if name == "name":
            return owner.name
    known = _attributes(owner)
    if name in known and not isinstance(owner, Module):
        return Method(owner, name)
    right = f"there is {', '.join(sorted(known))}" if known else "nothing can be taken from this"
    raise Refused(Refusal.FORBIDDEN, f"the attribute {name[:40]!r} is not part of the language; {right}", node)


def _attributes(owner: Any) -> Collection[str]:
    """The attributes of `owner` that are in the table."""
    match owner:
        case Module(name):
            return MODULES[name]
        case Draft(kind=kind):
            return {"name", *NODE_METHODS.get(kind, ())}
        case Registry():
            return {"register"}
        case str():
            return methods.TEXT
        case list():
            return methods.LIST
        case dict():
            return methods.DICT
    return ()
