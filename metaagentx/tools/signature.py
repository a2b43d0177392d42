"""What a typed function says of itself: its name, what it does, and its parameters as a JSON schema."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from metaagentx.tools.arguments import mismatch

_SIMPLE: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_DESCRIBABLE = "str, int, float, bool, list[...], dict[str, ...], Literal[...] and any of these | None"
_SECTION = re.compile(r"^(?:Args|Returns|Yields|Raises|Note|Notes|Example|Examples):[ \t]*$")
_ENTRY = re.compile(r"^(\w+)[ \t]*(?:\([^()]*\))?:[ \t]*(.*)$")


class BadTool(ValueError):
    """A function that cannot be a tool: the message names it, and says what would be right."""


def describe(function: Callable[..., Any]) -> tuple[str, str, dict[str, Any]]:
    """Name, description (the docstring's first paragraph) and parameters (a JSON schema) of a function.

    Parameters are described by the docstring's section `Args:`, a line `name: text` each; what is indented further
    goes on with the line before.

    Raises:
      BadTool: it has no docstring, is asynchronous, or takes or returns what cannot be described.
    """
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise BadTool(f"a tool is a function that has a name, not {function!r:.80}")
    if inspect.iscoroutinefunction(function):
        raise BadTool(f"{name}: a tool is a plain function, not an asynchronous one")
    text = inspect.getdoc(function)
    if not text:
        raise BadTool(f"{name}: a tool needs a docstring, whose first paragraph says what it does")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # whatever an annotation that is text evaluates to
        raise BadTool(f"{name}: its annotations cannot be read: {type(error).__name__}: {error}") from error
    return name, " ".join(text.split("\n\n")[0].split()), _parameters(function, name, hints, _described(text))


def _parameters(
    function: Callable[..., Any], name: str, hints: Mapping[str, Any], described: Mapping[str, str]
) -> dict[str, Any]:
    properties: dict[str, dict[str, Any]] = {}
    required = []
    signature = inspect.signature(function)
    for key, parameter in signature.parameters.items():
        place = f"{name}: the parameter {key!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise BadTool(f"{place} cannot be given by name; a model names every argument")
        schema = _schema(hints.get(key), place)
        if key in described:
            schema["description"] = described[key]
        if parameter.default is parameter.empty:
            required.append(key)
        elif wrong := mismatch(parameter.default, schema, f"{place} has a default that"):
            raise BadTool(wrong)
        else:
            schema["default"] = parameter.default
        properties[key] = schema
    if unknown := sorted(described.keys() - properties.keys()):
        raise BadTool(f"{name}: its docstring describes {unknown[0]!r}, which is no parameter")
    _schema(hints.get("return"), f"{name}: the result")
    return {"type": "object", "properties": properties, "required": required}


def _schema(hint: Any, place: str) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if origin is list:
        return {"type": "array", "items": _schema(inner[0], place)}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": _schema(inner[1], place)}
    if origin is Literal and len(kinds := {type(value) for value in inner}) == 1 and kinds <= _SIMPLE.keys():
        return {"type": _SIMPLE[kinds.pop()], "enum": list(inner)}
    if origin in (typing.Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        schema = _schema(inner[0] if inner[1] is type(None) else inner[1], place)
        schema["type"] = [schema["type"], "null"]
        return schema | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})
    if hint is None:
        raise BadTool(f"{place} has no type; there is {_DESCRIBABLE}")
    raise BadTool(f"{place} is of type {hint}, which cannot be described; there is {_DESCRIBABLE}")


def _described(text: str) -> dict[str, str]:
    """The entries of the section `Args:`, by name."""
    found: dict[str, str] = {}
    inside, margin, last = False, 0, ""
    for line in text.split("\n"):
        bare = line.strip()
        if _SECTION.match(line):
            inside, margin, last = bare == "Args:", 0, ""
        elif inside and bare and line == bare:
            inside = False  # a paragraph that is not indented ends the section
        elif inside and bare:
            indent = len(line) - len(line.lstrip())
            margin = margin or indent
            entry = _ENTRY.match(bare) if indent == margin else None
            if entry:
                last, found[entry[1]] = entry[1], entry[2]
            elif last:
                found[last] = f"{found[last]} {bare}".strip()
    return found
