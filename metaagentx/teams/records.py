"""What crosses between servers: sub-tasks and their results as text, ids, scalar rewards and weight versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SubTask:
    """One sub-task, for whichever server trains `policy`. `(run, key)` names it: put twice, it is there once."""

    key: str
    policy: str
    step: int
    rollout: str  # the rollout whose outcome decides its reward
    body: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A sub-task that one server works on. Whoever leases it after this one has expired gets a larger fence."""

    task: SubTask
    fence: int  # from 1: how often it has been leased


@dataclass(frozen=True, slots=True)
class Report:
    """How a sub-task ended."""

    key: str
    text: str | None  # None: nobody could do it (a dead letter)
    version: int  # of the weights that did it; -1 for a dead letter


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rollout earned, as its main agent's server graded it."""

    rollout: str
    step: int
    question: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a policy was told of one sample."""

    reward: float | None  # None: it was masked
    digest: int  # of its tokens


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where the newest weights of a policy are."""

    policy: str
    version: int
    uri: str
    digest: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A server's last sign of life."""

    server: str
    age: float  # seconds, by the store's clock
    text: str  # what it was doing
