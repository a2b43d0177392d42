"""Tools: plain typed functions with a description, and the box that runs what a model asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metaagentx.workflow.protocol import ToolCall, ToolResult

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class ToolError(Exception):
    """What a tool raises to tell the model what went wrong, and what would be right."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that agents may call.

    `parameters` is a JSON schema of its keyword arguments: {"type": "object", "properties": {name: {"type": ...}},
    "required": [...]}. The same arguments must always give the same text: a run is repeated from its record.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., str]

    def text(self) -> str:
        """The tool as a model is told of it: one line of JSON."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return json.dumps(about, ensure_ascii=False)


class Toolbox:
    """The tools of a run, by name."""

    def __init__(self, tools: Iterable[Tool], *, longest: int = 4096) -> None:
        """`longest`: characters of an output that a model is shown; the middle of a longer one is left out."""
        self.tools = {tool.name: tool for tool in tools}
        self.longest = longest

    def names(self) -> frozenset[str]:
        return frozenset(self.tools)

    def texts(self) -> dict[str, str]:
        """What a model is told of each tool, by name."""
        return {name: tool.text() for name, tool in self.tools.items()}

    def run(self, call: ToolCall) -> ToolResult:
        """Run one call. Never raises: what went wrong is the result, and says what would be right."""
        tool = self.tools.get(call.name)
        if tool is None:
            return ToolResult(f"there is no tool {call.name[:100]!r}; there is {', '.join(self.tools)}", ok=False)
        wrong = _mismatch(tool, call.arguments)
        if wrong is not None:
            return ToolResult(f"{tool.name}: {wrong}", ok=False)
        try:
            return ToolResult(self._bounded(str(tool.function(**call.arguments))))
        except ToolError as error:
            return ToolResult(self._bounded(str(error)), ok=False)
        except Exception as error:  # a tool is given hostile input: whatever it trips over is a result
            return ToolResult(self._bounded(f"{tool.name}: {type(error).__name__}: {error}"), ok=False)

    def _bounded(self, text: str) -> str:
        if len(text) <= self.longest:
            return text
        half = self.longest // 2
        return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[len(text) - half :]}"


def _mismatch(tool: Tool, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments of a call, or None."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    expected = ", ".join(f"{name}: {about.get('type', 'any')}" for name, about in properties.items())
    for name in tool.parameters.get("required", ()):
        if name not in arguments:
            return f"the argument {name!r} is missing; expected ({expected})"
    for name, value in arguments.items():
        if name not in properties:
            return f"no argument {str(name)[:100]!r}; expected ({expected})"
        wanted = properties[name].get("type")
        if wanted in _TYPES and (
            not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean")
        ):
            return f"the argument {name!r} must be of type {wanted}, not {type(value).__name__}"
    return None
