"""Drive a process to its end without a model: by a function, or by the record of an earlier run."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from metaagentx.workflow.protocol import (
    Call,
    Fork,
    Graft,
    Outcome,
    Process,
    Reply,
    RunResult,
    ToolCall,
    ToolCalls,
    ToolResult,
    Turn,
)

T = TypeVar("T")

Path: TypeAlias = tuple[tuple[str, int], ...]
Place: TypeAlias = tuple[Path, int]
"""Who asks: the process at a path, for the n-th time (from 0)."""

Answer: TypeAlias = Callable[[Path, Call | ToolCall], Reply | ToolResult]
Record: TypeAlias = dict[Place, Reply | ToolResult]


@dataclass(slots=True)
class _Branch:
    """A process under way, and where its result belongs."""

    process: Process[Any]
    path: Path
    parent: _Branch | None
    index: int  # of this branch within its parent's fork
    asked: int = 0  # calls of models and tools so far
    results: list[Any] = field(default_factory=list)  # of the fork or the tools that it waits for
    missing: int = 0

    def wait(self, count: int) -> None:
        self.results, self.missing = [None] * count, count

    def take(self, index: int, result: Any) -> bool:
        """Keep one result; whether it was the last one missing."""
        self.results[index] = result
        self.missing -= 1
        return not self.missing


def drive(process: Process[T], answer: Answer, *, order: random.Random | None = None) -> T:
    """Run `process` to its end and return its result.

    `answer` is given the path of the branch that asks and what it asks for. Branches are answered depth first,
    the first one first, or, with `order`, in an order drawn from it.
    """
    return _drive(process, lambda place, request: answer(place[0], request), order)


def record(process: Process[T], answer: Answer, *, order: random.Random | None = None) -> tuple[T, Record]:
    """Run `process` to its end; returns its result and all that it was answered."""
    answers: Record = {}

    def remember(place: Place, request: Call | ToolCall) -> Reply | ToolResult:
        answers[place] = answer(place[0], request)
        return answers[place]

    return _drive(process, remember, order), answers


def replay(process: Process[T], answers: Mapping[Place, Reply | ToolResult]) -> T:
    """Run `process` on the record of an earlier run: the same result, token for token.

    Raises:
      ValueError: the process asks for something that the record does not hold: it is not the recorded one.
    """

    def recall(place: Place, request: Call | ToolCall) -> Reply | ToolResult:
        result = answers.get(place)
        if not isinstance(result, Reply if isinstance(request, Call) else ToolResult):
            asked = f"a reply of {request.agent!r}" if isinstance(request, Call) else f"the tool {request.name!r}"
            raise ValueError(
                f"the record holds no answer number {place[1]} at {place[0]!r}, where the run asks for {asked}"
            )
        return result

    return _drive(process, recall, None)


def run_again(process: Process[RunResult], turns: Sequence[Turn]) -> RunResult:
    """Run `process` on the turns of an earlier run (`RunResult.turns`, `report.records.turns_of`): the same result.

    Turns are in the order of the design, and so are the questions of a process that is driven depth first.

    Raises:
      ValueError: an agent or tool is asked something else than was recorded, or not all that was: it is not that run.
    """
    left = deque(turns)
    tools: deque[tuple[ToolCall, ToolResult]] = deque()  # of the last turn

    def recall(path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        if isinstance(request, ToolCall):
            call, result = tools.popleft() if tools else (None, None)
            if call != request or result is None:
                raise ValueError(
                    f"the recorded run did not call {request.name!r} with {dict(request.arguments)!r} here"
                )
            return result
        asked = (request.agent, request.messages)
        while left and left[0].reply.outcome is Outcome.OVER_BUDGET and (left[0].agent, left[0].messages) != asked:
            left.popleft()  # refused by the run itself: nobody was asked
        if not left or (left[0].agent, left[0].messages) != asked:
            raise ValueError(f"the recorded run did not ask {request.agent!r} this: {request.messages!r:.500}")
        turn = left.popleft()
        tools.clear()
        tools.extend(zip(turn.tool_calls, turn.tool_results, strict=True))
        return turn.reply

    result = drive(process, recall)
    if result.turns != tuple(turns):
        raise ValueError(f"the recorded run has {len(turns)} turns, and this one {len(result.turns)} that differ")
    return result


def _drive(
    process: Process[T],
    answer: Callable[[Place, Call | ToolCall], Reply | ToolResult],
    order: random.Random | None,
) -> T:
    root = _Branch(process, (), None, 0)
    waiting: list[tuple[_Branch, Place, int, Call | ToolCall]] = []  # with the place among the branch's results
    steps: list[tuple[_Branch, Any]] = [(root, None)]
    while steps or waiting:
        if not steps:
            branch, place, index, request = waiting.pop(order.randrange(len(waiting)) if order else -1)
            reply = answer(place, request)
            if isinstance(request, Call):
                steps.append((branch, reply))
            elif branch.take(index, reply):
                steps.append((branch, tuple(branch.results)))
            continue
        branch, value = steps.pop()
        try:
            asked = branch.process.send(value)
        except StopIteration as stop:
            if branch.parent is None:
                return stop.value
            if branch.parent.take(branch.index, stop.value):
                steps.append((branch.parent, tuple(branch.parent.results)))
            continue
        if isinstance(asked, Fork):
            branch.wait(len(asked.branches))
            steps += [
                (_Branch(forked, (*branch.path, (asked.axis, index)), branch, index), None)
                for index, forked in enumerate(asked.branches)
            ]
        elif isinstance(asked, Graft):
            raise TypeError("a graft samples what is trained on: it is for the scheduler, and in no record")
        else:
            calls: tuple[Call | ToolCall, ...] = asked.calls if isinstance(asked, ToolCalls) else (asked,)
            branch.wait(len(calls))
            waiting += [(branch, (branch.path, branch.asked + n), n, call) for n, call in enumerate(calls)][::-1]
            branch.asked += len(calls)
        if not branch.missing:
            steps.append((branch, ()))
    raise AssertionError("a process ended without a result")
