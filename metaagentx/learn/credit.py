"""From rollouts to one advantage per trajectory: of designs and executions, or of one role of a team."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metaagentx.learn.advantage import FOLLOW, LEAD, Counts, Credit, Samples, advantages
from metaagentx.learn.align import Aligned, AlignOptions, align, places
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
    counts: NDArray[np.float32] | None = None  # [n], how often each counts in the loss; None: once
    sizes: tuple[int, ...] = ()  # of recent rollouts, their aligned trajectories: for the next step's alignment

    def of(self, role: str) -> Assigned:
        """One role's trajectories and advantages, without metrics."""
        chosen = [i for i, trajectory in enumerate(self.trajectories) if trajectory.role == role]
        return Assigned([self.trajectories[i] for i in chosen], self.advantages[chosen], {})


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
    metrics = {
        **_shares(credit),
        "advantage_nonzero": float(np.mean(advantage[train] != 0)) if train else 0.0,
        "masked": lost / max(lost + len(train), 1),
        **{f"reward/{role}": float(np.mean(values)) for role, values in rewards.items() if values},
    }
    return Assigned(trajectories, advantage[train], metrics)


def _shares(credit: Credit) -> dict[str, float]:
    groups = int(credit.groups)
    return {
        "groups": float(groups),
        "groups_single": int(credit.singletons) / max(groups, 1),
        "groups_equal": int(credit.equal) / max(groups, 1),
    }


def assign_role(
    trajectories: Sequence[Trajectory],
    rewards: NDArray[np.float32],
    lost: NDArray[np.bool_],
    *,
    options: CreditOptions,
    alignment: AlignOptions | None = None,
    sizes: Sequence[int] = (),
    seed: Sequence[int] = (),
) -> Assigned:
    """Advantages of one role of a team, by question (M-GRPO, arXiv 2511.13288): of the main agent, or of sub-agents.

    Args:
      trajectories: of one role; `design` is the rollout of its question.
      rewards: [n].
      lost: [questions, rollouts], which were lost to our own faults: their trajectories are members of nothing.
      alignment: of sub-agents: each rollout's trajectories are aligned to D places (`learn.align`), and those that got
        none are left out. Rows of the kernel are the places, so its shape depends on D alone, or with
        `alignment.statistics` "all" the trajectories. None: every trajectory counts once.
      sizes: numbers of trajectories of earlier rollouts, from which D may be taken, together with those of this step;
        those of rollouts that were lost are no numbers of any.
      seed: what the alignment is drawn from.

    Metrics: those of `assign`, with `reward` the mean over trajectories, and of an alignment `places` (D), `duplicated`
    (share of the filled places that hold a copy), `dropped` (share of the trajectories that got no place) and `empty`
    (share of the rollouts that were not lost and have no trajectory: they are in no denominator).
    """
    questions, rollouts = lost.shape
    live = [i for i, each in enumerate(trajectories) if not lost[each.question, each.design]]
    reward = np.asarray(rewards, np.float32)[live]
    question = np.array([trajectories[i].question for i in live], np.int64)
    aligned, metrics, recent = None, dict[str, float](), tuple[int, ...]()
    if alignment is not None:
        rollout = question * rollouts + np.array([trajectories[i].design for i in live], np.int64)
        own = np.bincount(rollout, minlength=questions * rollouts)[~lost.reshape(-1)]
        recent = (*sizes, *own.tolist())[-alignment.window :]
        target = places(np.array(recent, np.int64), alignment)
        aligned = align(rollout, questions * rollouts, target, alignment.weighting, seed)
        metrics = _alignment(aligned, own)

    rows = np.arange(len(live))  # of the kernel, by number; -1: none
    if aligned is not None and alignment is not None and alignment.statistics == "aligned":
        rows = aligned.index.reshape(-1)
    credit = _by_question(reward, question, rows, questions, options)
    advantage = np.zeros(len(live), np.float32)
    advantage[rows[rows >= 0]] = np.asarray(credit.advantage)[: len(rows)][rows >= 0]

    counts = np.ones(len(live), np.float32) if aligned is None else aligned.totals(len(live))
    train = np.flatnonzero(counts)
    metrics |= _shares(credit) | {
        "advantage_nonzero": float(np.mean(advantage[train] != 0)) if len(train) else 0.0,
        "masked": 1 - len(live) / max(len(trajectories), 1),
        "reward": float(np.mean(reward)) if len(live) else 0.0,
    }
    return Assigned([trajectories[live[i]] for i in train], advantage[train], metrics, counts[train], recent)


def _by_question(
    reward: NDArray[np.float32],
    question: NDArray[np.int64],
    rows: NDArray[np.int64],
    questions: int,
    options: CreditOptions,
) -> Credit:
    """The kernel over `rows` (numbers of trajectories, -1 is padding), each a member of its question's group."""
    table = np.full(_bucket(max(len(rows), LEAST)), -1, np.int64)
    table[: len(rows)] = rows
    filled = table >= 0
    ids = np.where(filled, question[table] if len(question) else -1, -1).astype(np.int32)
    nobody = np.full(len(table), -1, np.int32)
    samples = Samples(
        reward=np.where(filled, reward[table] if len(reward) else 0, 0).astype(np.float32),
        question=ids,
        design=nobody,
        execution=nobody,
        role=np.full(len(table), LEAD, np.int32),
        agent=nobody,
        turn=nobody,
        mask=filled,
    )
    return advantages(samples, Counts(questions, 1, 1, 1, 1), replace(options, grouping="m_grpo"))


def _alignment(aligned: Aligned, own: NDArray[np.int64]) -> dict[str, float]:
    """`own`: of each rollout that was not lost, its trajectories."""
    filled, kept = int((aligned.index >= 0).sum()), int(np.minimum(own, aligned.index.shape[1]).sum())
    return {
        "places": float(aligned.index.shape[1]),
        "duplicated": (filled - kept) / max(filled, 1),
        "dropped": 1 - kept / max(int(own.sum()), 1) if own.any() else 0.0,
        "empty": float(np.mean(own == 0)) if len(own) else 0.0,
    }
