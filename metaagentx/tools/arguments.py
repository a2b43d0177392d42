"""Arguments that a model sent, checked against a tool's JSON schema. What is wrong is said in the schema's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST = 65536  # characters and items of all arguments of a call
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


def check(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments of a call, and what is expected; or None."""
    properties: Mapping[str, Any] = parameters["properties"]
    expected = ", ".join(_expected(name, schema, name in parameters["required"]) for name, schema in properties.items())
    for name in parameters["required"]:
        if name not in arguments:
            return f"the argument {name!r} is missing; expected ({expected})"
    for name, value in arguments.items():
        if name not in properties:
            return f"there is no argument {str(name)[:80]!r}; expected ({expected})"
        if wrong := mismatch(value, properties[name], f"the argument {name!r}"):
            return wrong
    if (size := sum(map(_size, arguments.values()))) > LONGEST:
        return f"the arguments may have at most {LONGEST} characters and items, not {size}"
    return None


def mismatch(value: Any, schema: Mapping[str, Any], what: str) -> str | None:
    """How `value` differs from what `schema` describes, said of `what`; or None. Goes no deeper than the schema."""
    kind = schema["type"]
    if isinstance(kind, list):
        if value is None:
            return None
        kind = kind[0]
    if not _is(value, kind):
        return f"{what} must be of type {_type(schema)}, not {_WORDS.get(type(value), 'null')}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{what} must be one of {', '.join(map(repr, schema['enum']))}, not {value!r:.80}"
    if kind == "array":
        parts = ((f"[{index}]", part, schema["items"]) for index, part in enumerate(value))
    elif kind == "object":
        parts = ((f"[{key!r:.80}]", part, schema["additionalProperties"]) for key, part in value.items())
    else:
        return None
    return next((wrong for at, part, inner in parts if (wrong := mismatch(part, inner, what + at))), None)


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _type(schema: Mapping[str, Any]) -> str:
    return " or ".join(schema["type"]) if isinstance(schema["type"], list) else schema["type"]


def _expected(name: str, schema: Mapping[str, Any], required: bool) -> str:
    return f"{name}: {_type(schema)}" + ("" if required else f" = {schema['default']!r:.80}")


def _size(value: Any) -> int:
    """Characters and items, all levels together; of values that a schema has bounded in depth."""
    if isinstance(value, list):
        return len(value) + sum(map(_size, value))
    if isinstance(value, dict):
        return len(value) + sum(len(key) + _size(part) for key, part in value.items())
    return len(value) if isinstance(value, str) else 0
