"""What a team leaves behind: of each question its rollouts, of each rollout its sub-tasks, and what they earned."""

from __future__ import annotations

from dataclasses import dataclass

from metaagentx.rollout.trajectory import Trajectory
from metaagentx.tasks.task import Question
from metaagentx.teams.team import Errand, Rollout


@dataclass(slots=True)
class GradedErrand:
    """One sub-task with what it earned."""

    errand: Errand
    mark: float | None  # of the report, in [0, 1]; None: nobody can say, which earns as 0 does
    reward: float
    trajectory: Trajectory | None = None


@dataclass(slots=True)
class Graded:
    """One rollout with what it earned."""

    rollout: Rollout
    correct: float  # grade in [0, 1]
    reward: float  # the main agent's
    masked: bool  # lost to our own faults, with its sub-tasks: no member of any group
    errands: list[GradedErrand]
    trajectory: Trajectory | None = None  # the main agent's

    @property
    def trajectories(self) -> list[Trajectory]:
        """The main agent's, then those of its sub-tasks."""
        rows = self.trajectory, *(errand.trajectory for errand in self.errands)
        return [row for row in rows if row is not None]


@dataclass(slots=True)
class TeamTree:
    """One question with its K rollouts."""

    question: Question
    rollouts: list[Graded]
