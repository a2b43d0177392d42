"""Which weights sample: those after the update before, or older ones, so that sampling and updating overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from metaagentx.policies import Weights
from metaagentx.transfer import Way


class Snapshot(NamedTuple):
    """The weights after some updates, where replies are sampled."""

    weights: Weights
    version: int  # how many updates


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The snapshots that rollouts may still sample with.

    Rollout n, before which there were n updates, samples with the weights after max(n - staleness, d) of them, where d
    is the last step at which the pipeline was drained. So what a run does is a function of its steps and of those at
    which it was drained, and of no clock: a run that goes on from a checkpoint does what the whole run did that was
    drained there.
    """

    staleness: int  # updates that the weights which sample may be behind
    way: Way
    snapshots: tuple[Snapshot, ...] = ()  # oldest first, `staleness` + 1 at most

    def after(self, version: int, weights: Weights) -> Pipeline:
        """With the weights after `version` updates. Those that no rollout will read make room before these come."""
        return self._since(version - self.staleness)._with(Snapshot(self.way.bring(weights), version))

    def drained(self) -> Pipeline:
        """With the newest weights alone: the next rollout samples with them."""
        return self._since(self.newest.version)

    @property
    def oldest(self) -> Snapshot:
        """What the next rollout samples with."""
        return self.snapshots[0]

    @property
    def newest(self) -> Snapshot:
        return self.snapshots[-1]

    def _since(self, version: int) -> Pipeline:
        for snapshot in self.snapshots:
            if snapshot.version < version:
                self.way.free(snapshot.weights)
        return replace(self, snapshots=tuple(kept for kept in self.snapshots if kept.version >= version))

    def _with(self, snapshot: Snapshot) -> Pipeline:
        return replace(self, snapshots=(*self.snapshots, snapshot))
