"""Trajectory alignment (M-GRPO, arXiv 2511.13288, section 3.3): ragged numbers of sub-agent runs in a fixed shape.

Rollout k of a question made d_k >= 0 sub-trajectories. Each rollout is given D places: where d_k < D every original is
kept and extras are drawn from them with replacement; where d_k > D, D are drawn without; where d_k = 0 the places stay
empty and count nowhere. What is drawn is a function of the seed and of the rollout's number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Weighting = Literal["duplicate", "reweight", "rollout"]
Statistics = Literal["aligned", "all"]


@dataclass(frozen=True, slots=True)
class AlignOptions:
    """How many places a rollout has, and what a trajectory in them weighs."""

    target: int = 0  # D; 0: the smallest D that `quantile` of the recent rollouts do not exceed
    quantile: float = 0.99
    window: int = 4096  # recent rollouts that the quantile is over
    weighting: Weighting = "duplicate"  # see `align`
    statistics: Statistics = "aligned"  # a question's mean and std are over all places | over "all" trajectories

    def __post_init__(self) -> None:
        if self.target < 0:
            raise ValueError(f"align.target must be 0 (the quantile) or above, not {self.target}")
        if not 0 < self.quantile <= 1:
            raise ValueError(f"align.quantile must be in (0, 1], not {self.quantile}")
        if self.window < 1:
            raise ValueError(f"align.window must be at least 1, not {self.window}")
        for key, choices in (("weighting", get_args(Weighting)), ("statistics", get_args(Statistics))):
            if getattr(self, key) not in choices:
                raise ValueError(f"align.{key} must be one of {choices}, not {getattr(self, key)!r}")


@dataclass(frozen=True, slots=True)
class Aligned:
    """Which trajectory is in which place; shapes depend on the number of rollouts and on D alone."""

    index: NDArray[np.int64]  # [K, D], a trajectory's number; -1: empty
    weight: NDArray[np.float32]  # [K, D], what a place counts in the loss; 0 where it is empty

    def totals(self, count: int) -> NDArray[np.float32]:
        """[count], what each trajectory counts in all its places together: 0 where it was dropped."""
        totals = np.zeros(count + 1, np.float32)
        np.add.at(totals, self.index, self.weight)  # -1 is the last, which is no trajectory
        return totals[:-1]


def align(rollouts: NDArray[np.int64], count: int, target: int, weighting: Weighting, seed: Sequence[int]) -> Aligned:
    """Lay trajectories out in `target` places for each of `count` rollouts.

    Args:
      rollouts: [n], in [0, count), the rollout that each trajectory belongs to.
      target: D, at least 1.
      weighting: "duplicate": every filled place counts 1, as published. "reweight": every trajectory counts 1, whatever
        was drawn: copies share it, and those that survived a drop stand for the rest (unbiased). "rollout": every
        rollout with a trajectory counts 1.
      seed: what the draws are made from.
    """
    if target < 1:
        raise ValueError(f"alignment needs at least 1 place for each rollout, not {target}")
    index = np.full((count, target), -1, np.int64)
    weight = np.zeros((count, target), np.float32)
    for k in range(count):
        own = np.flatnonzero(rollouts == k)
        if not len(own):
            continue
        draw = np.random.default_rng([*seed, k])
        if len(own) > target:
            index[k] = np.sort(draw.choice(own, target, replace=False))
        else:
            index[k] = np.concatenate([own, draw.choice(own, target - len(own))])
        if weighting == "duplicate":
            weight[k] = 1
        else:
            copies = np.array([np.sum(index[k] == i) for i in index[k]])
            survivors = min(len(own), target)
            weight[k] = len(own) / survivors / copies
            if weighting == "rollout":
                weight[k] /= len(own)
    return Aligned(index, weight)


def places(sizes: NDArray[np.int64], options: AlignOptions) -> int:
    """D: as configured, or the smallest integer with P(d <= D) >= quantile over the last `window` of `sizes` [n]."""
    if options.target:
        return options.target
    recent = np.sort(sizes[-options.window :])
    if not len(recent):
        return 1
    return max(1, int(recent[max(0, int(np.ceil(options.quantile * len(recent) - 1e-9)) - 1)]))
