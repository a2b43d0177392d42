"""Constants out of a JSON object: of the right type, or an error that names the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar

Raw = Mapping[str, Any]  # what a JSON object holds
N = TypeVar("N", int, float)


class MissingConstant(ValueError):
    """A constant that the model needs is not in the file, is twice there, or is of the wrong type."""


class UnsupportedSetting(ValueError):
    """A setting changes what the model computes, in a way that is not supported or not known."""


def either(read: Callable[[Raw, str], N], *places: tuple[Raw, str]) -> N:
    """A constant that has several places; it may be in more than one if it is the same."""
    found = {read(place, key) for place, key in places if place.get(key) is not None}
    if len(found) > 1:
        names = ", ".join(dict.fromkeys(key for _, key in places))
        raise MissingConstant(f"{names}: given twice, as {' and '.join(map(str, sorted(found)))}")
    return found.pop() if found else read(*places[-1])


def integer(raw: Raw, key: str) -> int:
    """The whole number at `key`; it and its like raise MissingConstant."""
    value: int = _typed(raw, key, (int,), "an integer")
    return value


def number(raw: Raw, key: str) -> float:
    """The number at `key`, whole or not."""
    return float(_typed(raw, key, (int, float), "a number"))


def flag(raw: Raw, key: str) -> bool:
    """True or false at `key`; 1 is neither."""
    value: bool = _typed(raw, key, (bool,), "true or false")
    return value


def _typed(raw: Raw, key: str, types: Sequence[type], name: str) -> Any:
    if key not in raw:
        raise MissingConstant(f"{key}: missing; it must be {name}, and none is assumed")
    if type(raw[key]) not in types:
        raise MissingConstant(f"{key}: must be {name}, not {raw[key]!r}")
    return raw[key]


def refuse_unknown(keys: Set[str], where: str) -> None:
    """Raises UnsupportedSetting if any key is left that nothing reads."""
    if keys:
        raise UnsupportedSetting(
            f"{where}{', '.join(sorted(keys))}: not known, and might change what the model computes; "
            "if it does not, take it out of the file or name it in policy/hf_config.py"
        )
