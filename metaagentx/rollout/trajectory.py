"""What a rollout leaves behind: the tree of designs and executions, and the trajectories to train on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaagentx.tasks.task import Question
from metaagentx.workflow.ir import Design, Diagnosis
from metaagentx.workflow.protocol import Outcome, RunResult


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One conversation of one agent as trained on, all its turns in one row of tokens.

    L is the length in tokens. Token ids are those that were sampled or shown, never re-encoded text.
    `question`, `design` and `execution` index into the step's trees; `execution` is -1 for a designer.
    """

    tokens: NDArray[np.int32]  # [L] prompt, response, tool output, response, ...
    loss_mask: NDArray[np.bool_]  # [L] True where the token was sampled by the policy
    logprobs: NDArray[np.float32]  # [L] the sampler's log-probability where loss_mask, else 0
    role: str
    agent: str
    turn: int  # the agent's n-th conversation within its execution, from 0
    question: int
    design: int
    execution: int
    version: int  # the policy version that sampled it
    outcome: Outcome
    kept: NDArray[np.float32] | None = None  # [L] the sampler's true log-probability is `logprobs - kept`; None: 0

    @property
    def generated(self) -> int:
        """Tokens sampled."""
        return int(self.loss_mask.sum())


@dataclass(slots=True)
class Execution:
    """One run of one design on its question."""

    result: RunResult
    correct: float  # grade in [0, 1]
    format: float  # in [0, 1]
    cost: float  # in [0, 1]
    reward: float
    masked: bool = False  # lost to our own faults: no member of any group
    trajectories: tuple[Trajectory, ...] = ()


@dataclass(slots=True)
class DesignRollout:
    """One design as written, what became of it, and its executions."""

    text: str
    parsed: Design | Diagnosis
    key: str  # canonical key of a valid design, "" otherwise
    short: str  # the one-line form of a valid design, "" otherwise
    reward: float
    outcome: Outcome
    masked: bool = False
    executions: list[Execution] = field(default_factory=list)
    trajectory: Trajectory | None = None  # None where the design was given, not sampled
    leaks: bool = False  # whether a valid design says the true answer, which the question does not

    @property
    def valid(self) -> bool:
        return isinstance(self.parsed, Design)


@dataclass(slots=True)
class Tree:
    """One question with its M designs and their N executions each."""

    question: Question
    designs: list[DesignRollout]
