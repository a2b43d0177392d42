"""Values on their way in and out of a sandbox: JSON with a tag for what JSON lacks, compared without being rebuilt.

None, booleans, integers, floats, strings and lists are themselves; {"tuple": [...]}, {"set": [...]} (in order of
their JSON) and {"dict": [[key, value], ...]} (in their own order) are the rest. What comes out of a sandbox
stays in this form: outside, no hostile value is ever turned back into objects.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeAlias

Spelled: TypeAlias = Any  # None | bool | int | float | str | list[Spelled] | {"tuple" | "set" | "dict": [...]}

TOLERANCE = 1e-6  # relative and absolute, of a wanted float
DEEPEST = 50


def spell(value: object, depth: int = DEEPEST) -> Spelled:
    """A value of exactly a built-in type in this form. Raises TypeError on anything else, a subclass too."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if depth == 0:
        raise TypeError("a value is nested too deep")
    if isinstance(value, list) and kind is list:
        return [spell(part, depth - 1) for part in value]
    if isinstance(value, tuple) and kind is tuple:
        return {"tuple": [spell(part, depth - 1) for part in value]}
    if isinstance(value, set | frozenset) and kind in (set, frozenset):
        return {"set": sorted((spell(part, depth - 1) for part in value), key=json.dumps)}
    if isinstance(value, dict) and kind is dict:
        return {"dict": [[spell(key, depth - 1), spell(part, depth - 1)] for key, part in value.items()]}
    raise TypeError(f"a value of type {kind.__name__} cannot be handed over")


def rebuild(value: Spelled) -> Any:
    """The value that `spell` wrote. For the inside of a sandbox."""
    if isinstance(value, list):
        return [rebuild(part) for part in value]
    if isinstance(value, dict):
        ((kind, parts),) = value.items()
        if kind == "dict":
            return {rebuild(key): rebuild(part) for key, part in parts}
        return {"tuple": tuple, "set": set}[kind](rebuild(part) for part in parts)
    return value


def same(wanted: Spelled, got: Spelled) -> bool:
    """Whether `got` is the spelled value that was wanted: a float nearly, a tuple as a list, and True is not 1."""
    try:
        return _same(wanted, got)
    except RecursionError:  # our own values do not nest so deep
        return False


def _same(wanted: Spelled, got: Spelled) -> bool:
    kind, parts = _opened(wanted)
    other, others = _opened(got)
    if kind != other or len(parts) != len(others):
        return False
    if kind == "":
        return _equal(wanted, got)
    return all(_same(a, b) for a, b in zip(parts, others, strict=True))


def _opened(value: Spelled) -> tuple[str, list[Spelled]]:
    """A value's kind ("" of a simple one; tuples are lists) and its parts."""
    if isinstance(value, list):
        return "list", value
    if not isinstance(value, dict):
        return "", []
    kind, parts = next(iter(value.items()), ("nothing", []))
    if kind == "dict" and isinstance(parts, list):
        return kind, sorted(parts, key=json.dumps)  # in order of their keys, as these are distinct
    return "list" if kind == "tuple" else kind, parts if isinstance(parts, list) else []


def _equal(wanted: Spelled, got: Spelled) -> bool:
    if type(wanted) not in (int, float) or type(got) not in (int, float):
        return type(wanted) is type(got) and wanted == got
    if type(wanted) is int:  # what is exact is not met nearly
        return wanted == got
    try:
        return math.isclose(wanted, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (wanted != wanted and got != got)
    except OverflowError:  # an integer that no float can hold
        return False
