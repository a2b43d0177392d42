"""The arguments of a call, each with where it stands."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Set
from typing import Any

from metaagentx.workflow import methods
from metaagentx.workflow.constructors import IGNORED, Argument
from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.values import Values


def given(values: Values, call: ast.Call) -> tuple[list[Any], dict[str, Any]]:
    """The values of the positional and of the keyword arguments of `call`."""
    positional: list[Any] = []
    for node in call.args:
        if isinstance(node, ast.Starred):
            positional.extend(methods.items(values.read(node.value), node))
        else:
            positional.append(values.read(node))
    return positional, {key: argument.value for key, argument in keywords(values, call)}


def keywords(
    values: Values, call: ast.Call, known: Collection[str] | None = None, nodes: Set[str] = frozenset()
) -> Iterator[tuple[str, Argument]]:
    """The keyword arguments of `call` in order, read one by one, `**` of a known dictionary included.

    known: the keywords that there are (None: any). nodes: those that want nodes.
    """
    seen: set[str] = set()
    for keyword in call.keywords:
        if keyword.arg is not None:
            _check_keyword(keyword.arg, known, seen, keyword)
            yield keyword.arg, Argument(values.read(keyword.value, keyword.arg in nodes), keyword.value)
            continue
        table = values.read(keyword.value)
        if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
            raise Refused(Refusal.BAD_VALUE, "** takes a dictionary with string keys", keyword.value)
        for key, value in table.items():
            _check_keyword(key, known, seen, keyword.value)
            yield key, Argument(value, keyword.value)


def _check_keyword(key: str, known: Collection[str] | None, seen: set[str], at: ast.AST) -> None:
    if known is not None and key not in known:
        meant = ", ".join(name for name in known if name not in IGNORED or len(known) < len(IGNORED))
        raise Refused(Refusal.UNKNOWN_KEYWORD, f"there is no {key[:40]!r} here; there is {meant}", at)
    if key in seen:
        raise Refused(Refusal.SYNTAX, f"the keyword {key[:40]!r} is given twice; give it once", at)
    seen.add(key)


def bind(
    values: Values, call: ast.Call, name: str, signature: tuple[str, ...], nodes: tuple[str, ...] = ()
) -> dict[str, Argument]:
    """The arguments of a method by name; positional ones follow `signature`."""
    found: dict[str, Argument] = {}
    if len(call.args) > len(signature):
        message = f"{name} takes at most {len(signature)}: {', '.join(signature)}"
        raise Refused(Refusal.BAD_VALUE, message, call.args[len(signature)])
    for key, node in zip(signature, call.args, strict=False):
        found[key] = Argument(values.read(node, key in nodes), node)
    for key, argument in keywords(values, call, signature, frozenset(nodes)):
        if key in found:
            raise Refused(Refusal.SYNTAX, f"{key} of {name} is given twice; give it once", argument.at)
        found[key] = argument
    return found
