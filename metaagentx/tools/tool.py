"""A tool: a plain typed function with a docstring, and what a model is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from metaagentx.tools.signature import describe


class ToolError(Exception):
    """What a tool raises to tell the model what went wrong, and what would be right."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that agents may call, and still a function.

    `parameters` is a JSON schema of its keyword arguments: {"type": "object", "properties": {name: {"type": ...}},
    "required": [...]}. The same arguments must always give the same text: a run is repeated from its record. Calls run
    side by side, in threads. What it returns is text, or is told as JSON.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]
    timed: bool = False  # it ends by itself within limits of its own, which count instead of the toolbox's
    instant: bool = False  # it ends within milliseconds, whatever it is given: it needs no thread of its own

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """The tool that a function is: all by its name, signature and docstring. Raises BadTool (`signature`)."""
        return cls(*describe(function), function)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.function(*arguments, **keywords)

    def text(self) -> str:
        """The tool as a model is told of it: one line of JSON."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return json.dumps(about, ensure_ascii=False)


def tool(function: Callable[..., Any]) -> Tool:
    """The decorator that makes a function of a user's file a tool. Raises BadTool."""
    return Tool.of(function)
