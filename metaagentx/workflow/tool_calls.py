"""Tool calls as models write them, read from the text of a reply. Linear time, never raises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metaagentx.workflow.protocol import ToolCall

PYTHON_TOOLS = frozenset({"python_execute", "execute_code"})
MOST_CALLS = 8  # calls of one reply that are read
LONGEST = 65536  # characters of one call that are read
DEEPEST = 16  # lists and objects within each other in the arguments of a call

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:python|py)[ \t]*\n", re.IGNORECASE | re.MULTILINE)
_FENCE_END = re.compile(r"^[ \t]*```", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something between call tags that is no call: what to tell the model."""

    error: str


def read_tool_calls(
    text: str, agent: str, tools: tuple[str, ...], extract: Callable[[str], str | None]
) -> tuple[ToolCall | Malformed, ...]:
    """The calls of a reply, in order: tagged ones, else a fenced Python block.

    A fence counts only where the agent has a Python tool and the message holds no final answer.
    """
    bodies = _tagged(text)
    if bodies:
        tagged = [_read(body, agent) for body in bodies[:MOST_CALLS]]
        return (
            *tagged,
            *[Malformed(f"of one reply only the first {MOST_CALLS} calls are read")] * (len(bodies) > MOST_CALLS),
        )
    python = next((name for name in tools if name in PYTHON_TOOLS), None)
    if python is None or extract(text) is not None:
        return ()
    code = _fenced(text)
    return () if code is None else (ToolCall(python, {"code": code}, agent),)


def _tagged(text: str) -> list[str]:
    bodies: list[str] = []
    start = text.find(_OPEN)
    while start >= 0 and len(bodies) <= MOST_CALLS:  # one more tells that there are more
        start += len(_OPEN)
        end = text.find(_CLOSE, start)
        bodies.append(text[start : end if end >= 0 else len(text)])
        start = text.find(_OPEN, end) if end >= 0 else -1
    return bodies


def _fenced(text: str) -> str | None:
    opening = _FENCE.search(text)
    if opening is None:
        return None
    closing = _FENCE_END.search(text, opening.end())
    return text[opening.end() : closing.start()] if closing else None


def _read(body: str, agent: str) -> ToolCall | Malformed:
    if len(body) > LONGEST:
        return Malformed(f"a tool call may have at most {LONGEST} characters")
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return Malformed('a tool call is one JSON object: {"name": ..., "arguments": {...}}')
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Malformed('a tool call needs "name", the name of a tool')
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        return Malformed('"arguments" is a JSON object of the tool\'s parameters by name')
    if not _is_plain(arguments, DEEPEST):
        return Malformed(f'"arguments" may hold finite numbers only, and at most {DEEPEST} levels')
    return ToolCall(value["name"], arguments, agent)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a decoded value can be written as JSON again: Python reads NaN and 1e999, and nests without end."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(part, depth - 1) for part in inner)
    return not isinstance(value, float) or math.isfinite(value)
