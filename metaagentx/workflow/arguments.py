"""The arguments of a call, each with where it stands."""

from __future__ import annotations

import ast
from collections.abc import Set
from typing import Any

from metaagentx.workflow import methods
from metaagentx.workflow.constructors import Argument
from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.values import Values


def given(values: Values, call: ast.Call) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    for node in call.args:
        if isinstance(node, ast.Starred):
            positional.extend(methods.items(values.read(node.value), node))
        else:
            positional.append(values.read(node))
    return positional, {keyword: argument.value for keyword, argument in keywords(values, call).items()}


def keywords(values: Values, call: ast.Call, nodes: Set[str] = frozenset()) -> dict[str, Argument]:
    """The keyword arguments of `call`, `**` of a known dictionary included. `nodes`: those that want nodes."""
    found: dict[str, Argument] = {}
    for keyword in call.keywords:
        value = values.read(keyword.value, keyword.arg in nodes)
        if keyword.arg is None:
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                raise Refused(Refusal.BAD_VALUE, "** takes a dictionary with string keys", keyword.value)
            added = {key: Argument(part, keyword.value) for key, part in value.items()}
        else:
            added = {keyword.arg: Argument(value, keyword.value)}
        for key, argument in added.items():
            if key in found:
                raise Refused(Refusal.SYNTAX, f"the keyword {key[:40]!r} is given twice", keyword)
            found[key] = argument
    return found


def bind(
    values: Values, call: ast.Call, name: str, signature: tuple[str, ...], nodes: tuple[str, ...] = ()
) -> dict[str, Argument]:
    """The arguments of a method by name; positional ones follow `signature`."""
    found: dict[str, Argument] = {}
    if len(call.args) > len(signature):
        raise Refused(Refusal.BAD_VALUE, f"{name} takes {', '.join(signature)}", call.args[len(signature)])
    for key, node in zip(signature, call.args, strict=False):
        found[key] = Argument(values.read(node, key in nodes), node)
    for keyword in call.keywords:
        if keyword.arg not in signature:
            raise Refused(Refusal.UNKNOWN_KEYWORD, f"{name} takes {', '.join(signature)}", keyword)
        if keyword.arg in found:
            raise Refused(Refusal.SYNTAX, f"{keyword.arg} is given twice", keyword)
        found[keyword.arg] = Argument(values.read(keyword.value, keyword.arg in nodes), keyword.value)
    return found
