"""One conversation as token ids: what was shown and what was sampled, in order, never encoded twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.identity import Path, locate
from metaagentx.rollout.sampled import Sampled
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.workflow.protocol import Message, Outcome


class Dialogue(Protocol):
    """How messages become token ids and back. Messages are mappings with "role" and "content"."""

    def begin(self, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        """The ids of a first prompt, up to where the reply begins."""
        ...

    def extend(self, ids: Sequence[int], messages: Sequence[Mapping[str, str]], ended: bool) -> Sequence[int]:
        """`ids` and what follows them: an end of turn unless `ended`, `messages`, and where the reply begins."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The visible text of a reply."""
        ...


def as_mappings(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as tokenizers want them."""
    return [{"role": message.role, "content": message.content} for message in messages]


@dataclass(slots=True)
class Conversation:
    """A growing row of tokens. Only what leads up to a sampled reply is kept, so it always ends with one."""

    path: Path
    role: str
    agent: str
    turn: int
    version: int
    number: int  # of all conversations of a run
    tokens: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    messages: list[Message] = field(default_factory=list)  # the same as text
    replies: list[tuple[int, Sampled]] = field(default_factory=list)  # (where it begins, what was sampled)
    outcome: Outcome = Outcome.OK

    def extended(self, messages: tuple[Message, ...], chat: Dialogue) -> NDArray[np.int32]:
        """The tokens so far, `messages`, and where the next reply begins."""
        ended = not self.outcome.open
        return np.array(chat.extend(self.tokens.tolist(), as_mappings(messages), ended), np.int32)

    def add(self, prompt: NDArray[np.int32], sampled: Sampled) -> None:
        """Append what was sampled after `prompt`, of which the tokens so far must be a prefix."""
        if not np.array_equal(prompt[: len(self.tokens)], self.tokens):
            raise ValueError(f"conversation of agent {self.agent!r}: the new prompt does not continue its own tokens")
        self.replies.append((len(prompt), sampled))
        self.tokens = np.concatenate([prompt, sampled.tokens])
        self.outcome = sampled.outcome

    def trajectory(self) -> Trajectory:
        """The row to train on: loss on sampled tokens alone."""
        mask = np.zeros(len(self.tokens), bool)
        logprobs = np.zeros(len(self.tokens), np.float32)
        kept = None if all(sampled.kept is None for _, sampled in self.replies) else np.zeros_like(logprobs)
        for start, sampled in self.replies:
            where = slice(start, start + len(sampled.tokens))
            mask[where] = True
            logprobs[where] = sampled.logprobs
            if kept is not None and sampled.kept is not None:
                kept[where] = sampled.kept
        question, design, execution = locate(self.path)
        return Trajectory(
            self.tokens, mask, logprobs, self.role, self.agent, self.turn,
            question, design, execution, self.version, self.outcome, kept,
        )  # fmt: skip
