"""Typed sections: nested dataclasses read from nested mappings, with errors that name the key."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class SettingsError(ValueError):
    """A config that cannot be used; the message names the key and says what would be right."""


def build(cls: type[T], values: Mapping[str, Any], path: str) -> T:
    """The dataclass that `values` (a ConfigDict or plain mapping) describes. Raises SettingsError, naming the key."""
    if not isinstance(values, Mapping) and not hasattr(values, "items"):
        raise SettingsError(f"{path} must be a section with keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}

    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {path}.{near[0]}?" if near else f"; known keys: {', '.join(sorted(fields))}"
            raise SettingsError(f"{path}.{key} is not a known key{hint}")
        arguments[key] = _convert(hints[key], value, f"{path}.{key}")

    for key, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if key not in arguments and required:
            raise SettingsError(f"{path}.{key} is missing: it has no default and must be given")

    try:
        return cls(**arguments)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        return build(typing.cast(type, hint), value, path)
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise SettingsError(f"{path} must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return value
    if origin is Mapping:
        if not hasattr(value, "items"):
            raise SettingsError(f"{path} must be a section with keys, not {value!r}")
        part = typing.get_args(hint)[1]
        return {key: _convert(part, item, f"{path}.{key}") for key, item in value.items()}
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, tuple | list):
            raise SettingsError(f"{path} must be a tuple, not {value!r}")
        if inner[-1] is Ellipsis:
            inner = inner[:1] * len(value)
        if len(inner) != len(value):
            raise SettingsError(f"{path} must have {len(inner)} parts, not {len(value)}")
        return tuple(
            _convert(part, item, f"{path}[{i}]") for i, (part, item) in enumerate(zip(inner, value, strict=True))
        )
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(_member(hint, value, path), value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise SettingsError(f"{path} must be of type {hint.__name__}, not {type(value).__name__} ({value!r})")
    return value


def _member(union: Any, value: Any, path: str) -> Any:
    """The member of a union that `value` is meant for: of several sections, the one whose keys it has."""
    members = [a for a in typing.get_args(union) if a is not type(None)]
    if len(members) == 1 or not hasattr(value, "keys"):
        return next((a for a in members if isinstance(a, type) and isinstance(value, a)), members[0])
    keys = {member: {item.name for item in dataclasses.fields(member)} for member in members}
    for member, names in keys.items():
        if set(value.keys()) == names:
            return member
    wanted = " or ".join(f"{{{', '.join(sorted(names))}}}" for names in keys.values())
    raise SettingsError(f"{path} must have the keys {wanted}, not {{{', '.join(sorted(value.keys()))}}}")


def defaults(cls: type) -> dict[str, Any]:
    """Every key that has a default, with it, as nested dictionaries."""
    tree: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.default is not dataclasses.MISSING:
            tree[item.name] = keys(item.default)
        elif item.default_factory is not dataclasses.MISSING:
            tree[item.name] = keys(item.default_factory())
    return tree


def keys(value: Any) -> Any:
    """Options as nested dictionaries; everything else as it is."""
    if isinstance(value, Mapping):
        return {key: keys(item) for key, item in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    return {item.name: keys(getattr(value, item.name)) for item in dataclasses.fields(value)}


def plain(value: Any) -> Any:
    """Options as nested dictionaries, lists and scalars, for JSON and for comparing runs."""
    value = keys(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "config") -> list[str]:
    """The keys in which the settings asked for differ from those of a work directory, with both values."""
    lines: list[str] = []
    for key in sorted(set(ours) | set(theirs)):
        path, a, b = f"{prefix}.{key}", ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, path)
        elif a != b:
            lines.append(f"{path}: {a!r} asked for, {b!r} in the directory")
    return lines
