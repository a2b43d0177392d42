"""From rollout trees to one advantage per trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaagentx.learn.advantage import FOLLOW, LEAD, Counts, Samples, advantages
from metaagentx.learn.options import CreditOptions
from metaagentx.rollout.trajectory import Trajectory, Tree

LEAST = 4096  # rows of the kernel: seldom has a step more, and then one of another size is compiled
# Groupings whose unit is the whole execution: one that made no call is still a member, with its reward.
_BY_EXECUTION = ("metaagent_x", "per_design")
# Which of the agents' numbers and turns a grouping reads; what it does not read must not compile its kernel anew.
_READS = {"at_grpo": ("agents", "turns"), "per_agent": ("agents",)}


@dataclass(frozen=True, slots=True)
class Assigned:
    """The trajectories to train on, each with its advantage. Masked ones are left out."""

    trajectories: list[Trajectory]
    advantages: NDArray[np.float32]  # [n]
    metrics: dict[str, float]

    def of(self, role: str) -> tuple[list[Trajectory], NDArray[np.float32]]:
        """One role's trajectories and advantages."""
        chosen = [i for i, trajectory in enumerate(self.trajectories) if trajectory.role == role]
        return [self.trajectories[i] for i in chosen], self.advantages[chosen]


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the kernel: a trajectory, or (None) a member of a group that left nothing to train on."""

    trajectory: Trajectory | None
    reward: float
    ids: tuple[int, int, int]  # question, design, execution
    mask: bool


def _rows(trees: Sequence[Tree], by_execution: bool) -> list[_Row]:
    rows = []
    for q, tree in enumerate(trees):
        for d, design in enumerate(tree.designs):
            rows.append(_Row(design.trajectory, design.reward, (q, d, -1), not design.masked))
            for e, execution in enumerate(design.executions):
                calls: Sequence[Trajectory | None] = execution.trajectories
                if not calls and by_execution:
                    calls = (None,)
                rows.extend(_Row(call, execution.reward, (q, d, e), not execution.masked) for call in calls)
    return rows


def _bucket(count: int) -> int:
    """The next power of two, so that a new count seldom compiles anew."""
    return 1 << max(count - 1, 0).bit_length()


def _samples(rows: Sequence[_Row], grouping: str) -> tuple[Samples, Counts]:
    """Kernel arrays, padded to a power of two, and the bounds of the ids that `grouping` reads."""
    names: dict[str, int] = {}
    table = np.full((_bucket(max(len(rows), LEAST)), 6), -1, np.int32)  # question, design, execution, role, agent, turn
    reward, mask = np.zeros(len(table), np.float32), np.zeros(len(table), np.bool_)
    for i, row in enumerate(rows):
        agent, turn = -1, -1
        if row.trajectory is not None:
            agent, turn = names.setdefault(row.trajectory.agent, len(names)), row.trajectory.turn
        table[i] = (*row.ids, LEAD if row.ids[2] < 0 else FOLLOW, agent, turn)
        reward[i], mask[i] = row.reward, row.mask
    question, design, execution, role, agents, turns = table.T
    counts = Counts(*(_bucket(int(ids.max(initial=0)) + 1) for ids in (question, design, execution, agents, turns)))
    unread = dict.fromkeys({"agents", "turns"}.difference(_READS.get(grouping, ())), 1)
    return Samples(reward, question, design, execution, role, agents, turns, mask), counts._replace(**unread)


def assign(trees: Sequence[Tree], options: CreditOptions) -> Assigned:
    """Advantages of all trajectories of one step's trees.

    Metrics: `groups`, `groups_single` and `groups_equal` (shares of groups with one unit, and of groups of several that
    all got the same reward), `advantage_nonzero` (share of trajectories), `reward/designer`, `reward/executor` (means
    over unmasked designs and executions), `masked` (share of trajectories lost to our own faults).
    """
    rows = _rows(trees, options.grouping in _BY_EXECUTION)
    samples, counts = _samples(rows, options.grouping)
    credit = advantages(samples, counts, options)
    advantage = np.asarray(credit.advantage)

    train = [i for i, row in enumerate(rows) if row.trajectory is not None and row.mask]
    trajectories = [trajectory for i in train if (trajectory := rows[i].trajectory) is not None]
    lost = sum(row.trajectory is not None and not row.mask for row in rows)
    designs = [design for tree in trees for design in tree.designs]
    rewards = {
        "designer": [design.reward for design in designs if not design.masked],
        "executor": [run.reward for design in designs for run in design.executions if not run.masked],
    }
    groups = int(credit.groups)
    metrics = {
        "groups": float(groups),
        "groups_single": int(credit.singletons) / max(groups, 1),
        "groups_equal": int(credit.equal) / max(groups, 1),
        "advantage_nonzero": float(np.mean(advantage[train] != 0)) if train else 0.0,
        "masked": lost / max(lost + len(train), 1),
        **{f"reward/{role}": float(np.mean(values)) for role, values in rewards.items() if values},
    }
    return Assigned(trajectories, advantage[train], metrics)
