"""What an engine counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from metaagentx.rollout.rows import Place, Prompt


@dataclass(slots=True)
class Clock:
    """When anything was last read from a device. Engines that share it count no second twice, though all wait."""

    read: float = 0.0


@dataclass(slots=True)
class Work:
    """What an engine did since it was last asked."""

    calls: int = 0
    prompt_tokens: int = 0  # of the calls started
    equal_tokens: int = 0  # of these, copied or kept with a whole prompt
    dialogue_tokens: int = 0  # with the turns before
    prefix_tokens: int = 0  # with another prompt's beginning
    generated_tokens: int = 0
    slot_steps: int = 0  # slots x decode steps
    busy_slot_steps: int = 0  # of these, with an active call
    prefill_seconds: float = 0.0  # in which the device was at prompts, and not counted by an engine of the same clock
    decode_seconds: float = 0.0  # in which it decoded, likewise

    @property
    def forked_tokens(self) -> int:
        """Prompt tokens that were copied, or in place already."""
        return self.equal_tokens + self.dialogue_tokens + self.prefix_tokens

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens that were computed."""
        return self.prompt_tokens - self.forked_tokens

    def count(self, placed: Iterable[tuple[Prompt, Place]]) -> None:
        """Prompts that are put into rows."""
        for prompt, place in placed:
            self.prompt_tokens += len(prompt.tokens)
            if place.shared == len(prompt.tokens):
                self.equal_tokens += place.shared
            elif place.own:
                self.dialogue_tokens += place.shared
            else:
                self.prefix_tokens += place.shared
