"""The box that runs what a model asks for: every call is bounded, and none of them raises."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from metaagentx.tools.arguments import check
from metaagentx.tools.crew import Crew, Job
from metaagentx.tools.options import ToolOptions
from metaagentx.tools.tool import Tool, ToolError
from metaagentx.workflow.protocol import ToolCall, ToolResult

# What chat templates put around calls, results and thoughts: words of their own to many tokenizers, but not special.
_TAGS = re.compile(r"</?(?:tools?|tool_calls?|tool_responses?|think(?:ing)?)>", re.IGNORECASE)


class Toolbox:
    """The tools of a run, by name.

    A call that takes longer than `options.seconds` is told so and abandoned, not killed: no thread can be. While
    `options.abandoned` calls of a tool have not ended, further calls of it are turned down. At most `options.workers`
    calls run at a time; the others wait, and their time begins when they do. Instant tools run in the caller, at once.
    Raises ValueError where two tools have one name.
    """

    def __init__(self, tools: Iterable[Tool], options: ToolOptions | None = None) -> None:
        self.tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self.tools:
                raise ValueError(f"there are two tools of the name {tool.name!r}; name it once, or rename yours")
            self.tools[tool.name] = tool
        self.options = options or ToolOptions()
        self._crew: Crew[ToolResult] = Crew(self.options.workers, self.options.abandoned)

    def names(self) -> frozenset[str]:
        return frozenset(self.tools)

    def texts(self) -> dict[str, str]:
        """What a model is told of each tool, by name."""
        return {name: tool.text() for name, tool in self.tools.items()}

    def run(self, call: ToolCall) -> ToolResult:
        """The result of one call. Never raises: what went wrong is the result, and says what would be right."""
        return self.submit(call).result()

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        """The result of one call, once it is there. Never raises, nor does the future."""
        tool = self.tools.get(call.name)
        if tool is None:
            there = ", ".join(self.tools) or "none"
            return _done(ToolResult(f"there is no tool {call.name[:80]!r}; there is {there}", ok=False))
        if wrong := check(call.arguments, tool.parameters):
            return _done(ToolResult(self._shown(f"{tool.name}: {wrong}"), ok=False))
        arguments = copy.deepcopy(dict(call.arguments))  # a tool may change what it is given, but not the record
        if tool.instant:
            return _done(self._called(tool, arguments))
        seconds = self.options.seconds
        job = Job(
            tool.name,
            lambda: self._called(tool, arguments),
            None if tool.timed else seconds,
            late=ToolResult(f"{tool.name} took longer than {seconds:g} seconds and was given up", ok=False),
            refused=ToolResult(f"{tool.name} is out of service: too many of its calls did not end", ok=False),
        )
        return self._crew.submit(job)

    def _called(self, tool: Tool, arguments: dict[str, Any]) -> ToolResult:
        try:
            found = tool.function(**arguments)
            text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, allow_nan=False)
            return ToolResult(self._shown(text))
        except BaseException as error:  # a tool is given hostile input: whatever it trips over is a result
            if tool.instant and isinstance(error, KeyboardInterrupt):
                raise  # the user's, in the caller's thread
            return ToolResult(self._shown(_told(error, tool)), ok=False)

    def _shown(self, text: str) -> str:
        """`text` as a model is shown it: cut in the middle if it is long, without tags, and fit to be encoded."""
        longest = self.options.longest
        if len(text) > longest:
            half = longest // 2
            text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[len(text) - half :]}"
        return _TAGS.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def _told(error: BaseException, tool: Tool) -> str:
    try:
        return str(error) if isinstance(error, ToolError) else f"{tool.name}: {type(error).__name__}: {error}"
    except Exception:  # its text is the tool's own code, too
        return f"{tool.name}: {type(error).__name__}"


def _done(result: ToolResult) -> Future[ToolResult]:
    future: Future[ToolResult] = Future()
    future.set_result(result)
    return future
