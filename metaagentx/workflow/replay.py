"""Drive a process to its end without a model: by a function, or by the record of an earlier run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from metaagentx.workflow.protocol import Call, Fork, Process, Reply, ToolCall, ToolResult

T = TypeVar("T")

Path: TypeAlias = tuple[tuple[str, int], ...]
Answer: TypeAlias = Callable[[Path, Call | ToolCall], Reply | ToolResult]
Record: TypeAlias = dict[tuple[Path, int], Reply | ToolResult]
"""What was answered to the n-th request (from 0) of the process at each path."""


@dataclass(slots=True)
class _Branch:
    """A process under way, and where its result belongs."""

    process: Process[Any]
    path: Path
    parent: _Branch | None
    index: int  # of this branch within its parent's fork
    results: list[Any]  # of the fork that it waits for
    missing: int = 0


def drive(process: Process[T], answer: Answer, *, order: random.Random | None = None) -> T:
    """Run `process` to its end and return its result.

    `answer` is given the path of the branch that asks and what it asks for. Branches are answered depth first,
    the first one first, or, with `order`, in an order drawn from it.
    """
    root = _Branch(process, (), None, 0, [])
    waiting: list[tuple[_Branch, Call | ToolCall]] = []
    steps: list[tuple[_Branch, Any]] = [(root, None)]
    while steps or waiting:
        if not steps:
            branch, request = waiting.pop(order.randrange(len(waiting)) if order else -1)
            steps.append((branch, answer(branch.path, request)))
        branch, value = steps.pop()
        try:
            asked = branch.process.send(value)
        except StopIteration as stop:
            parent = branch.parent
            if parent is None:
                return stop.value
            parent.results[branch.index] = stop.value
            parent.missing -= 1
            if parent.missing == 0:
                steps.append((parent, tuple(parent.results)))
            continue
        if not isinstance(asked, Fork):
            waiting.append((branch, asked))
        elif not asked.branches:
            steps.append((branch, ()))
        else:
            branch.results, branch.missing = [None] * len(asked.branches), len(asked.branches)
            steps += [
                (_Branch(forked, (*branch.path, (asked.axis, index)), branch, index, []), None)
                for index, forked in enumerate(asked.branches)
            ]
    raise AssertionError("a process ended without a result")


def record(process: Process[T], answer: Answer, *, order: random.Random | None = None) -> tuple[T, Record]:
    """Run `process` to its end; returns its result and all that it was answered."""
    answers: Record = {}
    counts: dict[Path, int] = {}

    def remember(path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        key = path, counts.get(path, 0)
        counts[path] = key[1] + 1
        answers[key] = answer(path, request)
        return answers[key]

    return drive(process, remember, order=order), answers


def replay(process: Process[T], answers: Mapping[tuple[Path, int], Reply | ToolResult]) -> T:
    """Run `process` on the record of an earlier run: the same result, token for token.

    Raises:
      ValueError: the process asks for something that the record does not hold: it is not the recorded one.
    """
    counts: dict[Path, int] = {}

    def recall(path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        key = path, counts.get(path, 0)
        counts[path] = key[1] + 1
        result = answers.get(key)
        if not isinstance(result, Reply if isinstance(request, Call) else ToolResult):
            asked = f"a reply of {request.agent!r}" if isinstance(request, Call) else f"the tool {request.name!r}"
            raise ValueError(f"the record holds no answer number {key[1]} at {path!r}, where the run asks for {asked}")
        return result

    return drive(process, recall)
