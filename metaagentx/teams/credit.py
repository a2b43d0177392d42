"""What each role of a team learns from: the same rows and the same draws in one program and on servers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaagentx.learn.credit import Assigned, assign_role
from metaagentx.learn.options import CreditOptions
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.teams.options import MAIN, TeamOptions
from metaagentx.teams.tree import Graded, GradedErrand, TeamTree


class Earned(NamedTuple):
    """One trajectory, and what it earned."""

    trajectory: Trajectory
    reward: float


def earned(trees: Sequence[TeamTree], role: str) -> list[Earned]:
    """The trajectories of one role: question by question, rollout by rollout, sub-task by sub-task."""
    found = []
    for rollout in (rollout for tree in trees for rollout in tree.rollouts):
        parts: list[Graded | GradedErrand] = [rollout, *rollout.errands]
        for each in parts:
            if each.trajectory is not None and each.trajectory.role == role:
                found.append(Earned(each.trajectory, each.reward))
    return found


def lost_of(trees: Sequence[TeamTree]) -> NDArray[np.bool_]:
    """[questions, K], which rollouts were lost to our own faults."""
    return np.array([[rollout.masked for rollout in tree.rollouts] for tree in trees], np.bool_)


def credit(
    role: str,
    rows: Sequence[Earned],
    lost: NDArray[np.bool_],
    team: TeamOptions,
    options: CreditOptions,
    *,
    sizes: Sequence[int],
    seed: int,
    step: int,
) -> Assigned:
    """Advantages of one role: the main agent's within each question, sub-agents' aligned.

    Args:
      rows: as `earned` orders them.
      lost: as `lost_of` has it.
      sizes: `Assigned.sizes` of the step before.
      seed, step: what alignment draws from, apart for each role.
    """
    return assign_role(
        [row.trajectory for row in rows],
        np.array([row.reward for row in rows], np.float32),
        lost,
        options=options,
        alignment=None if role == MAIN else team.align,
        sizes=sizes,
        seed=(seed, step, zlib.crc32(role.encode())),
    )
