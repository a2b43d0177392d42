"""A run of the scheduler, and what it took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from metaagentx.rollout.at_work import Share, Tools
from metaagentx.rollout.compilation import count_compilations
from metaagentx.rollout.conversation import Dialogue
from metaagentx.rollout.division import add
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Sampler, distinct
from metaagentx.rollout.scheduler import Spent, run
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.rollout.work import Clock, Work
from metaagentx.workflow.protocol import Process

T = TypeVar("T")


class Watched(Sampler, Protocol):
    """A sampler that counts its work."""

    def watch(self, clock: Clock) -> None:
        """Count what is done from now on. `clock`: that of all whose work is added up."""
        ...

    def take_work(self) -> Work:
        """What was done since the last time this was asked."""
        ...


@dataclass(frozen=True, slots=True)
class Observed(Generic[T]):
    """What a process returned, and what it took."""

    value: T
    trajectories: list[Trajectory]
    spent: Spent
    work: Work  # of all engines together
    seconds: float  # wall time
    compilations: int


def observe(
    process: Process[T],
    engines: Mapping[str, Watched],
    chat: Dialogue,
    toolbox: Tools,
    sampling: Mapping[str, SamplingOptions],
    *,
    seed: int,
    step: int,
    share: Share,
) -> Observed[T]:
    """`scheduler.run`, watched. What the engines did before is forgotten."""
    several, clock = distinct(engines), Clock()
    for engine in several:
        engine.watch(clock)
    begun = time.perf_counter()
    with count_compilations() as compilations:
        value, trajectories, spent = run(process, engines, chat, toolbox, sampling, seed=seed, step=step, share=share)
    seconds, work = time.perf_counter() - begun, add([engine.take_work() for engine in several])
    return Observed(value, trajectories, spent, work, seconds, compilations.count)
