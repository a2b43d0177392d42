"""Tools under way while engines decode: begun, taken as they end, and seen alike by every process."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from metaagentx.workflow.protocol import ToolCall, ToolResult

T = TypeVar("T")

Found: TypeAlias = list[tuple[int, str, bool, float]]
"""Tools that have ended: number, text, whether all went well, seconds from its start."""


class Share(Protocol):
    """Gives every process what `find` returns on process 0 (as JSON tells it); the others do not call it."""

    def __call__(self, find: Callable[[], T]) -> T: ...


class Tools(Protocol):
    """Runs tools side by side."""

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        """Begin a call, and return at once.

        The future ends in bounded time. What goes wrong with a tool is its result; what this or the future
        raises ends the run, as where the server of a team is told to stop, or its database fails.
        """
        ...


def alone(find: Callable[[], T]) -> T:
    """`Share` of a single process."""
    return find()


@dataclass(slots=True)
class AtWork:
    """The tools of one `run`, by number. What is begun, and when its end is noticed, is the same on all processes."""

    tools: Tools
    share: Share
    numbers: int = 0
    underway: int = 0
    queue: list[tuple[int, ToolCall]] = field(default_factory=list)  # asked for since the last `take`
    running: dict[Future[ToolResult], int] = field(default_factory=dict)  # their numbers
    times: dict[int, list[float]] = field(default_factory=dict)  # of its begin and end, on this process's clock

    def begin(self, call: ToolCall) -> int:
        """Have a tool run; its number."""
        self.queue.append((self.numbers, call))
        self.numbers += 1
        self.underway += 1
        return self.numbers - 1

    def take(self, *, patient: bool) -> list[tuple[int, ToolResult, float]]:
        """(number, result, seconds) of tools that have ended, in the order of numbers. `patient`: waits for one."""
        found = self.share(lambda: self._find(patient))
        self.queue.clear()
        self.underway -= len(found)
        return [(number, ToolResult(text, ok), seconds) for number, text, ok, seconds in found]

    def _find(self, patient: bool) -> Found:
        for number, call in self.queue:
            self._start(number, call)
        found: Found = []
        for future in wait(self.running, None if patient else 0, FIRST_COMPLETED).done:
            number, result = self.running.pop(future), future.result()
            # Futures call back after they wake who waits: its end may not be there yet.
            begun, ended, *_ = *self.times.pop(number), time.perf_counter()
            found.append((number, result.text, result.ok, ended - begun))
        return sorted(found)

    def _start(self, number: int, call: ToolCall) -> None:
        times = self.times[number] = [time.perf_counter()]
        future = self.tools.submit(call)
        self.running[future] = number
        future.add_done_callback(lambda _: times.append(time.perf_counter()))
