"""What process 0 alone does for all: it runs tools and grades answers, and tells the others what came of it.

A program under a time limit may end well on one machine and not on another. Processes that saw different results would
no longer run the same loop, so there is one result; and nothing that a model wrote is run more than once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from metaagentx.hosts import from_primary
from metaagentx.mesh import is_primary
from metaagentx.tasks.task import GradingFailed, Question, Task, Verdict

T = TypeVar("T")


def told(find: Callable[[], T]) -> T:
    """What `find` returns on process 0 (JSON; tuples become lists), on every process; the others do not call it.

    Every process must ask, at the same place of its program.
    """
    found: T = json.loads(from_primary(json.dumps(find()) if is_primary() else ""))
    return found


class PrimaryTask:
    """`task`, graded by process 0. Every process must ask for the same verdicts in the same order."""

    def __init__(self, task: Task) -> None:
        self._task, self.name = task, task.name

    def grading(self, question: Question, answer: str | None) -> Verdict:
        verdict = self._task.grading(question, answer) if is_primary() else None

        def find() -> tuple[float | None, str]:
            assert verdict is not None  # process 0 has one
            try:
                return verdict(), ""
            except GradingFailed as error:
                return None, str(error)

        def shared() -> float:
            grade, failure = told(find)
            if grade is None:
                raise GradingFailed(failure)
            return grade

        return shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)
