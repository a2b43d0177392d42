"""What a run samples, credits and scores: designs and their executions, or the rollouts of a team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from metaagentx.learn.credit import Assigned
from metaagentx.options import EvaluateOptions
from metaagentx.policy.chat import Chat
from metaagentx.rollout.at_work import Share, Tools
from metaagentx.rollout.division import Division
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.language import Language
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.score import Score
from metaagentx.tasks.task import Question, Task
from metaagentx.workflow.protocol import Message

Engines: TypeAlias = Mapping[str, Engine | Remote]
"""Who answers for each role."""
Sizes: TypeAlias = Mapping[str, Sequence[int]]
"""Of recent rollouts, the trajectories of each role that is aligned (`learn.credit.assign_role`)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What sampling needs beside engines, whatever is sampled."""

    task: Task
    chat: Chat
    toolbox: Tools
    language: Language
    share: Share
    division: Division


class Sampled(Protocol):
    """What was sampled for a batch of questions."""

    @property
    def trajectories(self) -> list[Trajectory]: ...

    @property
    def metrics(self) -> dict[str, float]: ...

    def digest(self) -> str:
        """A hash of what training takes from it."""
        ...


@dataclass(frozen=True, slots=True)
class Credited:
    """What each role learns from."""

    roles: Mapping[str, Assigned]
    metrics: dict[str, float]

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """What the next step's alignment goes by, of the roles that are aligned."""
        return {role: assigned.sizes for role, assigned in self.roles.items() if assigned.sizes}

    def advantages(self, question: int) -> dict[tuple[int, int], float]:
        """Of one question's trajectories that were trained on, by `design` and `execution`."""
        return {
            (trajectory.design, trajectory.execution): float(advantage)
            for assigned in self.roles.values()
            for trajectory, advantage in zip(assigned.trajectories, assigned.advantages, strict=True)
            if trajectory.question == question
        }


S = TypeVar("S")


class System(Protocol[S]):
    """How questions are answered, and what is made of the answers. `S` is what it samples."""

    def sample(self, questions: Sequence[Question], engines: Engines, *, seed: int, step: int) -> S:
        """Have the questions answered. The same arguments and weights give the same samples, whatever ran before."""
        ...

    def credit(self, sampled: S, sizes: Sizes, *, seed: int, step: int) -> Credited:
        """One advantage for each trajectory."""
        ...

    def score(self, sampled: S) -> Score:
        """Grades and prices of the samples."""
        ...

    def episode(
        self, sampled: S, number: int, credited: Credited | None = None, *, step: int, phase: str
    ) -> dict[str, Any]:
        """Question `number` with all that was said, for people to read."""
        ...

    def opening(self, question: Question) -> tuple[str, tuple[Message, ...]] | None:
        """The role that is asked first, and what it is shown; None where no role is shown the bare question."""
        ...

    def held_out(self, options: EvaluateOptions) -> System[S]:
        """The same system as it is evaluated."""
        ...

    def once(self) -> System[S]:
        """The same system with a single sample for each question."""
        ...
