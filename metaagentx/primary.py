"""What process 0 alone does for all: it runs tools and grades answers, and tells the others what came of it.

A program under a time limit may end well on one machine and not on another. Processes that saw different results would
no longer run the same loop, so there is one result; and nothing that a model wrote is run more than once.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Protocol

from metaagentx.hosts import from_primary
from metaagentx.mesh import is_primary
from metaagentx.tasks.task import GradingFailed, Question, Task, Verdict
from metaagentx.workflow.protocol import ToolCall, ToolResult


class Tools(Protocol):
    def run(self, call: ToolCall) -> ToolResult: ...


class PrimaryTools:
    """`tools`, run by process 0. Every process must make the same calls in the same order."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def run(self, call: ToolCall) -> ToolResult:
        found = json.dumps(dataclasses.asdict(self._tools.run(call))) if is_primary() else ""
        return ToolResult(**json.loads(from_primary(found)))


class PrimaryTask:
    """`task`, graded by process 0. Every process must ask for the same verdicts in the same order."""

    def __init__(self, task: Task) -> None:
        self._task, self.name = task, task.name

    def grading(self, question: Question, answer: str | None) -> Verdict:
        verdict = self._task.grading(question, answer) if is_primary() else None

        def told() -> float:
            grade, failure = None, ""
            if verdict is not None:
                try:
                    grade = verdict()
                except GradingFailed as error:
                    failure = str(error)
            grade, failure = json.loads(from_primary(json.dumps([grade, failure])))
            if grade is None:
                raise GradingFailed(failure)
            return grade

        return told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)
