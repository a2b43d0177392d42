"""The contract between those who ask for replies and whoever samples them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.options import SamplingOptions
from metaagentx.workflow.protocol import Message, Outcome

T = TypeVar("T")
CallIds = tuple[int, int, int, int, int, int]  # seed, step, question, design, execution, call


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One call: what is asked, of which role, and all that its reply may depend on."""

    ticket: int  # the caller's name for the call, unique among those in flight
    prompt: NDArray[np.int32]  # the dialogue so far as ids; a later turn begins with the ids of the turns before it
    ids: CallIds  # what the call's random key is made of
    sampling: SamplingOptions
    role: str
    conversation: int = -1  # equal for the turns of one dialogue, else unique; -1: there is no other turn
    messages: tuple[Message, ...] = ()  # the dialogue so far as text, replies included: for samplers that read text


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled reply of n tokens. `tokens` ends with the end-of-turn token unless `outcome` is STOPPED or CUT."""

    tokens: NDArray[np.int32]  # [n]
    logprobs: NDArray[np.float32]  # [n], under the plain distribution (temperature 1)
    outcome: Outcome
    kept: NDArray[np.float32] | None = None  # [n], as `draw` has it: log of the plain mass that could be drawn; None: 0


class Sampler(Protocol):
    """Whatever answers calls: the engine, a server, or a script in a test."""

    version: int

    def submit(self, ask: Ask) -> None:
        """Queue one call."""
        ...

    def step(self) -> list[tuple[int, Sampled]]:
        """Do some work; (ticket, reply) of the calls that finished. Every call finishes after finitely many steps."""
        ...

    def hold(self, conversation: int) -> None:
        """Tools or others work for this dialogue: another turn is likely, so what was computed may be kept."""
        ...

    def release(self, conversation: int) -> None:
        """This dialogue has ended: its number may come to be another's."""
        ...

    def drop(self) -> None:
        """Nobody waits any longer: forget every call, so that what comes next is as with a new sampler."""
        ...


def distinct(samplers: Mapping[str, T]) -> list[T]:
    """Every sampler once, however many roles it serves."""
    return list({id(sampler): sampler for sampler in samplers.values()}.values())
