"""The builtin functions and the methods of plain values that a script may use, each bounded before it computes."""

from __future__ import annotations

import ast
import re
import string
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from metaagentx.workflow.drafts import Opaque
from metaagentx.workflow.ir import Refusal
from metaagentx.workflow.refused import Refused
from metaagentx.workflow.surface import QUESTION, asks

MAX_TEXT = 64 * 1024  # characters of one value
MAX_ITEMS = 1000
MAX_NUMBER = 2**53
MAX_DEPTH = 16  # of expressions, blocks and conditions
_SPEC = re.compile(r"[<>^]?0?\d{0,2}(\.\d{1,2})?[dfgs%]?")

TEXT = {"strip", "lstrip", "rstrip", "lower", "upper", "capitalize", "title", "replace", "join", "format"}
LIST = {"append", "extend"}
DICT = {"get", "items", "keys", "values"}
FUNCTIONS = {"len", "str", "int", "float", "range", "enumerate", "zip", "list", "tuple", "dict", "hasattr", "dedent"}


def bounded(value: Any, at: ast.AST) -> Any:
    """`value`, unless it is too long."""
    if isinstance(value, str):
        fits(len(value), MAX_TEXT, "characters", at)
    elif isinstance(value, list | tuple | dict):
        fits(len(value), MAX_ITEMS, "items", at)
    elif isinstance(value, int | float) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise Refused(Refusal.TOO_LONG, "a number may not exceed 2**53", at)
    return value


def fits(length: int, most: int, what: str, at: ast.AST) -> None:
    if length > most:
        raise Refused(Refusal.TOO_LONG, f"a value would have {length} {what}; at most {most} are allowed", at)


def show(value: Any, at: ast.AST) -> str:
    """`str(value)` of a scalar."""
    if isinstance(value, str | int | float | None):
        return str(value)
    raise Refused(Refusal.UNSUPPORTED, "only strings and numbers can be put into text", at)


def formatted(value: Any, spec: str, at: ast.AST) -> str:
    """`format(value, spec)` of a scalar, for short specifications of width and precision."""
    if not spec:
        return show(value, at)
    if not isinstance(value, str | int | float) or not _SPEC.fullmatch(spec):
        raise Refused(Refusal.UNSUPPORTED, f"the format {spec[:20]!r} is not read; write the text itself", at)
    try:
        return format(value, spec)
    except (ValueError, OverflowError):
        raise Refused(
            Refusal.BAD_VALUE, f"the format {spec!r} does not fit its value; write the text itself", at
        ) from None


def text_method(owner: str, name: str, given: Sequence[Any], named: Mapping[str, Any], at: ast.AST) -> str | Opaque:
    """`owner.name(*given, **named)` of a string; what holds something opaque is opaque."""
    for value in (*given, *named.values()):
        if isinstance(value, Opaque):
            return value
    if name == "format":
        return _fill(owner, given, named, at)
    if named:
        raise Refused(Refusal.UNSUPPORTED, f"{name} takes no keywords here, only values in order", at)
    if name == "join":
        if len(given) != 1 or not isinstance(given[0], list | tuple | dict):
            raise Refused(Refusal.BAD_VALUE, "join takes one list of strings", at)
        pieces = list(given[0])
        for piece in pieces:
            if isinstance(piece, Opaque):
                return piece
        if not all(isinstance(piece, str) for piece in pieces):
            raise Refused(Refusal.BAD_VALUE, "join takes one list of strings", at)
        fits(sum(map(len, pieces)) + len(owner) * len(pieces), MAX_TEXT, "characters", at)
        return owner.join(pieces)
    if not all(isinstance(argument, str) for argument in given):
        raise Refused(Refusal.BAD_VALUE, f"{name} takes strings", at)
    if name == "replace":
        if len(given) != 2:
            raise Refused(Refusal.BAD_VALUE, "replace takes two strings", at)
        old, new = given
        fits(len(owner) + owner.count(old) * (len(new) - len(old)), MAX_TEXT, "characters", at)
        return owner.replace(old, new)
    if len(given) > (name in ("strip", "lstrip", "rstrip")):
        raise Refused(Refusal.BAD_VALUE, f"{name} takes no more than {int('strip' in name)} arguments", at)
    transforms: dict[str, Callable[..., str]] = {
        "strip": str.strip,
        "lstrip": str.lstrip,
        "rstrip": str.rstrip,
        "lower": str.lower,
        "upper": str.upper,
        "capitalize": str.capitalize,
        "title": str.title,
    }
    changed = transforms[name](owner, *given)
    return changed if not asks(owner) or given else changed.replace(transforms[name](QUESTION), QUESTION)


def _fill(template: str, given: Sequence[Any], named: Mapping[str, Any], at: ast.AST) -> str:
    """`template.format(...)` for fields that are plain names or numbers."""
    pieces: list[str] = []
    length, automatic = 0, 0
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise Refused(
            Refusal.BAD_VALUE, f"the template cannot be filled: {error}; write {{{{ for a brace", at
        ) from None
    for literal, field, spec, conversion in fields:
        pieces.append(literal)
        if field is not None:
            if conversion or (field and not field.isidentifier() and not field.isdecimal()):
                raise Refused(Refusal.FORBIDDEN, f"the field {field[:40]!r} must be a plain name or number", at)
            if field.isdecimal() or not field:
                index = int(field[:4]) if field else automatic
                automatic += not field
                if index >= len(given):
                    raise Refused(Refusal.BAD_VALUE, f"the template needs an argument {index}", at)
                value = given[index]
            elif field in named:
                value = named[field]
            else:
                raise Refused(Refusal.UNKNOWN_NAME, f"the template needs {field[:40]}=..., or {{{{ }}}} for braces", at)
            pieces.append(formatted(value, spec or "", at))
        length += sum(map(len, pieces[-2:]))
        fits(length, MAX_TEXT, "characters", at)
    return "".join(pieces)


def list_method(owner: list[Any], name: str, given: Sequence[Any], at: ast.AST) -> None:
    if len(given) != 1:
        raise Refused(Refusal.BAD_VALUE, f"{name} takes one argument", at)
    added = list(items(given[0], at)) if name == "extend" else [given[0]]
    fits(len(owner) + len(added), MAX_ITEMS, "items", at)
    owner.extend(added)


def dict_method(owner: dict[Any, Any], name: str, given: Sequence[Any], at: ast.AST) -> Any:
    if name == "get":
        if not 1 <= len(given) <= 2 or not hashable(given[0]):
            raise Refused(Refusal.BAD_VALUE, "get takes a key and a default", at)
        return owner.get(given[0], given[1] if len(given) == 2 else None)
    if given:
        raise Refused(Refusal.BAD_VALUE, f"{name} takes no arguments", at)
    return {"items": list(owner.items()), "keys": list(owner), "values": list(owner.values())}[name]


def call_function(name: str, given: Sequence[Any], named: Mapping[str, Any], at: ast.AST) -> Any:
    """A builtin of the table. Anything unusual about its arguments is refused rather than guessed at."""
    if name == "dict" and not given:
        return dict(named)
    if named and not (name == "enumerate" and set(named) == {"start"}):
        raise Refused(Refusal.UNSUPPORTED, f"{name} takes no keywords here, only values in order", at)
    match name, given:
        case (("len" | "int" | "float"), [value]) if isinstance(value, Opaque) or asks(value):
            raise Refused(Refusal.UNSUPPORTED, f"{name} needs a value that is known when the design is read", at)
        case "len", [str() | list() | tuple() | dict() | range() as value]:
            return len(value)
        case "str", [Opaque() as value]:
            return value
        case "str", [value]:
            return show(value, at)
        case "hasattr", [Opaque(), str()]:  # of a run's result
            return True
        case "int" | "float", [int() | float() | str() as value]:
            return _number(name, value, at)
        case "range", [*bounds] if 1 <= len(bounds) <= 3 and all(isinstance(bound, int) for bound in bounds):
            if len(bounds) == 3 and bounds[2] == 0:
                raise Refused(Refusal.BAD_VALUE, "the step of a range must not be 0", at)
            return range(*bounds)
        case "enumerate", [value, *rest] if len(rest) <= 1:
            start = rest[0] if rest else named.get("start", 0)
            if isinstance(start, int):
                return list(enumerate(items(value, at), start))
        case "zip", [_, *_]:
            return list(zip(*(items(value, at) for value in given), strict=False))
        case "list" | "tuple", []:
            return [] if name == "list" else ()
        case "list" | "tuple", [value]:
            return list(items(value, at)) if name == "list" else tuple(items(value, at))
        case "dict", [dict() as value]:
            return dict(value)
        case "dedent", [str() as value]:
            return textwrap.dedent(value)
    raise Refused(Refusal.BAD_VALUE, f"{name} takes other arguments, as in Python; write its value instead", at)


def _number(name: str, value: int | float | str, at: ast.AST) -> int | float:
    try:
        return int(value) if name == "int" else float(value)
    except (ValueError, OverflowError):
        raise Refused(Refusal.BAD_VALUE, f"{name} cannot read this value; it must be a number", at) from None


def items(value: Any, at: ast.AST) -> Iterable[Any]:
    """What a loop over `value` sees."""
    if isinstance(value, range):
        fits(len(value), MAX_ITEMS, "items", at)
        return value
    if isinstance(value, list | tuple | dict):
        return list(value)
    if isinstance(value, str) and not asks(value):
        fits(len(value), MAX_ITEMS, "items", at)
        return list(value)
    raise Refused(Refusal.UNSUPPORTED, "only literal lists and ranges can be gone through", at)


def hashable(value: Any) -> bool:
    return isinstance(value, str | int | float | None)
