"""A rollout in parts: several processes sample some of its questions each, and all hold the whole.

Question i of n belongs to process i mod P. A call's random key is made of the question's own number, so no token
depends on who sampled it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, TypeVar

from metaagentx.rollout.scheduler import Spent
from metaagentx.rollout.trajectory import DesignRollout, Trajectory
from metaagentx.rollout.work import Work

SIDE_BY_SIDE = ("prefill_seconds", "decode_seconds", "idle_seconds")  # of processes that work at the same time
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """What one process sampled. Its trajectories are not joined to its designs."""

    designs: list[list[DesignRollout]]  # of each question that is its own, in order
    trajectories: list[Trajectory]  # numbered by the questions of the whole
    work: Work
    spent: Spent
    seconds: float
    compilations: int


Exchange: TypeAlias = Callable[[Callable[[], Part]], list[Part]]
"""Has every place find its part; the parts of all, by place."""


def _alone(find: Callable[[], Part]) -> list[Part]:
    return [find()]


@dataclass(frozen=True, slots=True)
class Division:
    """Which part is this process's, and how it comes by the others'."""

    place: int = 0
    places: int = 1
    exchange: Exchange = _alone

    def own(self, questions: int) -> range:
        """The questions of this process."""
        return range(self.place, questions, self.places)


WHOLE = Division()  # a single process


def join(parts: Sequence[Part]) -> Part:
    """The whole that the parts of all places make; its questions are in order.

    Tokens and calls add up. Processes work at the same time, so that the longest says how many seconds it took, and
    what their engines took is that of the mean one.
    """
    questions = sum(len(part.designs) for part in parts)
    rows = [row for part in parts for row in part.trajectories]
    return Part(
        designs=[parts[i % len(parts)].designs[i // len(parts)] for i in range(questions)],
        trajectories=sorted(rows, key=lambda row: row.question),  # stable: each question's are in order
        work=_mean_of(SIDE_BY_SIDE, add([part.work for part in parts]), len(parts)),
        spent=_mean_of(SIDE_BY_SIDE, add([part.spent for part in parts]), len(parts)),
        seconds=max(part.seconds for part in parts),
        compilations=max(part.compilations for part in parts),
    )


def add(records: Sequence[T]) -> T:
    """Field by field the sum of records of one dataclass."""
    first: Any = records[0]
    total: T = type(first)(
        **{item.name: sum(getattr(record, item.name) for record in records) for item in fields(first)}
    )
    return total


def _mean_of(names: Sequence[str], total: Any, count: int) -> Any:
    """`total` of `count` records, with the means of those fields that it has."""
    own = [item.name for item in fields(total) if item.name in names]
    return replace(total, **{name: getattr(total, name) / count for name in own})
