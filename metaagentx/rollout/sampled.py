"""What an engine is asked for and what it gives back: the contract between scheduler and engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.options import SamplingOptions
from metaagentx.workflow.protocol import Outcome

CallIds = tuple[int, int, int, int, int, int]  # seed, step, question, design, execution, call


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled reply of n tokens. `tokens` ends with the end-of-turn token unless `outcome` is CUT."""

    tokens: NDArray[np.int32]  # [n]
    logprobs: NDArray[np.float32]  # [n], under the plain distribution (temperature 1)
    outcome: Outcome


class Sampler(Protocol):
    """Whatever answers calls: the engine, or a script in a test."""

    version: int

    def submit(
        self, ticket: int, prompt: NDArray[np.int32], ids: CallIds, sampling: SamplingOptions, role: str
    ) -> None:
        """Queue one call of `role`. `ticket` is the caller's name for it, unique among the calls in flight."""
        ...

    def step(self) -> list[tuple[int, Sampled]]:
        """Do some work; the calls that finished. Every submitted call finishes after finitely many steps."""
        ...
