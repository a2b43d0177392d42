"""A sub-task as text: what its main agent's server puts into the store, and what comes back."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from metaagentx.rollout.identity import Path
from metaagentx.teams.options import MAIN
from metaagentx.teams.records import SubTask
from metaagentx.teams.team import Delegate, Errand, SubAgent
from metaagentx.workflow.context import Said
from metaagentx.workflow.protocol import Outcome, Process, ToolCall, ToolCalls, ToolResult

PUT = "<put>"  # the tool of a main agent's server that has sub-tasks done elsewhere: no name that a model could write


@dataclass(frozen=True, slots=True)
class Order:
    """What a sub-agents' server is told of a sub-task. It is the same text whenever a step is played again."""

    sub: str  # the kind of sub-agent
    task: str
    question: int  # the number of the question in the run's endless order
    path: Path  # where the sub-task stands among the forks of its step: what its randomness is made of
    number: int  # of the sub-task in its rollout
    turn: int  # rounds before this one in which the same kind of sub-agent was asked

    def text(self) -> str:
        path = [list(part) for part in self.path]
        return json.dumps(dataclasses.asdict(self) | {"path": path}, sort_keys=True)

    @classmethod
    def of(cls, task: SubTask) -> Order:
        """What a sub-task's text says. Raises ValueError if it is no order, or is another sub-task's."""
        try:
            order = json.loads(task.body)
            path = tuple((axis, index) for axis, index in order.pop("path"))
            found = cls(path=path, **order)
            (_, question), (_, rollout), (axis, branch) = path
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"sub-task {task.key} is no order: {error}") from error
        numbers = question, rollout, branch, found.question, found.number, found.turn
        key = rollout_key(task.step, question, rollout) if all(type(number) is int for number in numbers) else ""
        if not (
            all(isinstance(text, str) for text in (axis, found.sub, found.task))
            and path[:2] == (("question", question), ("design", rollout))
            and (task.rollout, task.key) == (key, errand_key(key, found.number))
            and min(numbers) >= 0
        ):
            raise ValueError(f"sub-task {task.key} of rollout {task.rollout} is another's order: {task.body}")
        return found


def rollout_key(step: int, question: int, rollout: int) -> str:
    """Names one rollout in the store. Keys sort as their numbers do."""
    return f"{step:07}/{question:05}/{rollout:04}"


def errand_key(rollout: str, number: int) -> str:
    """Names one sub-task of the rollout of this name."""
    return f"{rollout}/{number:03}"


def across(step: int, cursor: int, question: int, rollout: int) -> Delegate:
    """Has the sub-tasks of one rollout done by other servers. `cursor`: the number of the step's first question."""
    key, numbers, rounds = rollout_key(step, question, rollout), itertools.count(), Counter[str]()

    def delegate(asked: Sequence[tuple[SubAgent, str]], axis: str) -> Process[tuple[Errand, ...]]:
        calls = []
        for branch, (sub, task) in enumerate(asked):
            path, number = (("question", question), ("design", rollout), (axis, branch)), next(numbers)
            order = Order(sub.name, task, cursor + question, path, number, rounds[sub.name])
            given = SubTask(errand_key(key, number), sub.role, step, key, order.text())
            calls.append(ToolCall(PUT, {"task": given}, MAIN))
        rounds.update({sub.name for sub, _ in asked})
        results: tuple[ToolResult, ...] = yield ToolCalls(tuple(calls))
        return tuple(report(sub.name, task, result) for (sub, task), result in zip(asked, results, strict=True))

    return delegate


def reply(errand: Errand, mark: float | None) -> str:
    """What is handed in of a sub-task that was done."""
    said = errand.said
    found = {"text": said.text, "answer": said.answer, "outcome": said.outcome, "tokens": errand.tokens, "mark": mark}
    return json.dumps(found, sort_keys=True)


def report(sub: str, task: str, result: ToolResult) -> Errand:
    """A sub-task as its main agent's server sees it. One that nobody could do ended by our own fault."""
    if not result.ok:
        return Errand(sub, task, Said(sub, "", None, Outcome.FAILED))
    return read_reply(sub, task, result.text)


def read_reply(sub: str, task: str, text: str) -> Errand:
    """A sub-task with what was handed in."""
    found: dict[str, Any] = json.loads(text)
    said, mark = Said(sub, found["text"], found["answer"], Outcome(found["outcome"])), found["mark"]
    return Errand(sub, task, said, tokens=found["tokens"], mark=None if mark is None else partial(float, mark))
