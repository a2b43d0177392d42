"""A tool is a plain typed function: what it says of itself is what a model is told and what a call must keep to."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.tools.arguments import LONGEST, check
from metaagentx.tools.signature import BadTool
from metaagentx.tools.tool import Tool, tool


@tool
def look_up(
    words: list[str],
    most: int = 3,
    near: Literal["exact", "close"] = "exact",
    weights: dict[str, float] | None = None,
    place: Optional[Literal["a", "b"]] = None,  # noqa: UP045
    *,
    quick: bool = False,
) -> list[str]:
    """Looks words up
    in a list.

    It has more to say than models are told.

    Args:
      words: what to look for,
        at most five
      weights (dict): how much each
        word counts: more is more

      quick: whether to hurry

    Returns:
      most: this is no parameter's description.
    """
    return sorted(words)[:most]


def test_a_function_says_all_of_a_tool() -> None:
    assert look_up.name == "look_up"
    assert look_up.description == "Looks words up in a list."
    assert look_up.parameters == {
        "type": "object",
        "properties": {
            "words": {
                "type": "array",
                "items": {"type": "string"},
                "description": "what to look for, at most five",
            },
            "most": {"type": "integer", "default": 3},
            "near": {"type": "string", "enum": ["exact", "close"], "default": "exact"},
            "weights": {
                "type": ["object", "null"],
                "additionalProperties": {"type": "number"},
                "description": "how much each word counts: more is more",
                "default": None,
            },
            "place": {"type": ["string", "null"], "enum": ["a", "b", None], "default": None},
            "quick": {"type": "boolean", "description": "whether to hurry", "default": False},
        },
        "required": ["words"],
    }
    assert look_up(["b", "a"], most=1) == ["a"], "it is a function still"


def test_a_model_is_told_of_a_tool_in_one_line_of_json() -> None:
    text = look_up.text()
    assert "\n" not in text
    told = {"name": "look_up", "description": look_up.description, "parameters": look_up.parameters}
    assert json.loads(text) == told


def no_docstring(x: int) -> str:
    return ""


def no_type(x) -> str:  # type: ignore[no-untyped-def]
    """Does."""


def no_result(x: int):  # type: ignore[no-untyped-def]
    """Does."""


def bare_list(x: list) -> str:
    """Does."""


def two_types(x: int | str) -> str:
    """Does."""


def numbered(x: dict[int, str]) -> str:
    """Does."""


def mixed(x: Literal["a", 1]) -> str:
    """Does."""


def deep(x: list[list[bytes]]) -> str:
    """Does."""


def starred(*x: int) -> str:
    """Does."""


def keywords(**x: int) -> str:
    """Does."""


def positional(x: int, /) -> str:
    """Does."""


def unknown(x: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Does."""


def wrong_default(x: int = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
    """Does."""


def misdescribed(x: int) -> str:
    """Does.

    Args:
      y: a number
    """


async def later(x: int) -> str:
    """Does."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_docstring, "no_docstring: a tool needs a docstring"),
        (no_type, "no_type: the parameter 'x' has no type; there is str, int"),
        (no_result, "no_result: the result has no type"),
        (bare_list, "'x' is of type <class 'list'>, which cannot be described; there is str"),
        (two_types, "'x' is of type int | str, which cannot be"),
        (numbered, r"'x' is of type dict\[int, str\]"),
        (mixed, r"'x' is of type typing.Literal\['a', 1\]"),
        (deep, "'x' is of type <class 'bytes'>"),
        (starred, "'x' cannot be given by name"),
        (keywords, "'x' cannot be given by name"),
        (positional, "'x' cannot be given by name"),
        (unknown, "unknown: its annotations cannot be read: NameError"),
        (wrong_default, "'x' has a default that must be of type integer, not null"),
        (misdescribed, "describes 'y', which is no parameter"),
        (later, "not an asynchronous one"),
        (lambda: "", "a tool is a function that has a name"),
        (3, "a tool is a function that has a name"),
    ],
)
def test_a_function_that_cannot_be_described_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(BadTool, match=message):
        Tool.of(function)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'words' is missing; expected (words: array, most: integer = 3, near: string = 'exact', weights: object"),
        ({"words": "a"}, "'words' must be of type array, not string"),
        ({"words": ["a", 1]}, "'words'[1] must be of type string, not integer"),
        ({"words": [None]}, "'words'[0] must be of type string, not null"),
        ({"words": [], "most": True}, "'most' must be of type integer, not boolean"),
        ({"words": [], "most": 2.0}, "'most' must be of type integer, not number"),
        ({"words": [], "near": "far"}, "'near' must be one of 'exact', 'close', not 'far'"),
        ({"words": [], "weights": {"a": "b"}}, "'weights'['a'] must be of type number, not string"),
        ({"words": [], "weights": []}, "'weights' must be of type object or null, not array"),
        ({"words": [], "place": "c"}, "'place' must be one of 'a', 'b', None, not 'c'"),
        ({"words": [], "quick": 1}, "'quick' must be of type boolean, not integer"),
        ({"words": [], "self": 1}, "there is no argument 'self'; expected (words"),
        ({"words": ["a" * LONGEST]}, f"at most {LONGEST} characters and items, not {LONGEST + 1}"),
        ({"words": [""] * (LONGEST + 1)}, f"at most {LONGEST} characters and items"),
        ({"words": [], "weights": {"a" * LONGEST: 1.0, "b": 1}}, f"at most {LONGEST} characters"),
    ],
)
def test_arguments_that_do_not_fit_are_told_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    wrong = check(arguments, look_up.parameters)
    assert wrong is not None
    assert message in wrong


def test_arguments_that_fit_pass() -> None:
    for more in ({}, {"weights": {"a": 1, "b": 0.5}}, {"weights": None, "place": None}, {"place": "b", "quick": True}):
        assert check({"words": ["a"], **more}, look_up.parameters) is None


def conforms(value: Any, hint: Any) -> bool:
    """Whether a value decoded from JSON is of a type; written from the type, not from its schema."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is list:
        return type(value) is list and all(conforms(part, inner[0]) for part in value)
    if origin is dict:
        return type(value) is dict and all(conforms(part, inner[1]) for part in value.values())
    if origin in (types.UnionType, typing.Union):
        return value is None or conforms(value, inner[0])
    return type(value) is hint or (hint is float and type(value) is int)


simple = st.sampled_from([str, int, float, bool, Literal["a", "b"], Literal[1, 2], Literal[True]])
hints = st.recursive(
    simple,
    lambda inner: st.one_of(inner.map(lambda hint: list[hint]), inner.map(lambda hint: dict[str, hint])),
    max_leaves=3,
).flatmap(lambda hint: st.sampled_from([hint, hint | None, list[hint | None]]))
scalars = st.sampled_from([None, True, False, 0, 1, 2, 1.0, 2.5, "", "a", "c"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "k"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(hints, values)
def test_the_check_agrees_with_the_types(hint: Any, value: Any) -> None:
    def take(x):  # type: ignore[no-untyped-def]
        """Takes."""

    take.__annotations__ = {"x": hint, "return": str}
    described = Tool.of(take)
    assert json.loads(described.text())["parameters"] == described.parameters
    assert (check({"x": value}, described.parameters) is None) == conforms(value, hint)


def test_no_depth_of_arguments_breaks_the_check() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "must be of type string, not array" in str(check({"words": deep}, look_up.parameters))
