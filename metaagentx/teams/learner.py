"""What the loops of the servers need of a policy, and the samples that they give it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from metaagentx.rollout.trajectory import Trajectory
from metaagentx.teams.records import Outcome, Pointer, Trained
from metaagentx.teams.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One rollout of the main agent, or one sub-task, as its policy is trained on it."""

    key: str
    trajectory: Trajectory | None  # None where nothing was sampled
    reward: float
    masked: bool  # lost to our own faults: a member of nothing


class Learner(Protocol):
    """One policy on its server."""

    @property
    def step(self) -> int:
        """Steps trained: the version of the weights that sample now."""
        ...

    @property
    def kept(self) -> int:
        """The oldest step at which the run can still go on."""
        ...

    def learn(self, samples: Sequence[Sample], lost: Sequence[bool], idle: float) -> None:
        """Train one step, and sample with the new weights from now on.

        `lost`: of each rollout of the step, in order, whether it was lost to our own faults. `idle`: seconds that the
        step had to wait.
        """
        ...

    def save(self) -> Pointer:
        """Write a checkpoint, unless there is one of this step; where it is."""
        ...


class Superseded(RuntimeError):
    """Another server has published other weights of the same policy."""


def lost_of(outcomes: Sequence[Outcome]) -> list[bool]:
    """Whether each rollout was lost to our own faults."""
    return [bool(outcome.values["masked"]) for outcome in outcomes]


def publish(store: Store, pointer: Pointer) -> None:
    """Point at saved weights, unless the store points at them or at later ones already (steps are made again then).

    Raises:
      Superseded: this version was published with other weights.
    """
    known = store.pointer(pointer.policy)
    if known is not None and known.version > pointer.version:
        return
    fresh = known is None or known.version < pointer.version
    if fresh and store.publish(pointer, expected=-1 if known is None else known.version):
        return
    known = store.pointer(pointer.policy)
    if known is None or (known.version, known.digest) != (pointer.version, pointer.digest):
        raise Superseded(f"the weights of policy {pointer.policy!r} at {pointer.uri} are not those published: {known}")


def record(store: Store, policy: str, step: int, samples: Sequence[Sample]) -> None:
    """Tell the store what a step is made of."""
    told = {each.key: Trained(None if each.masked else each.reward, digest(each.trajectory)) for each in samples}
    store.trained(policy, step, told)


def digest(trajectory: Trajectory | None) -> int:
    """CRC-32 of a sample's tokens, and of which of them were sampled; 0 where nothing was."""
    if trajectory is None:
        return 0
    return zlib.crc32(trajectory.loss_mask.tobytes(), zlib.crc32(trajectory.tokens.tobytes()))
