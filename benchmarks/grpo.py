"""What the trainers that are compared are given, and metaagentx's own step on it.

All take one step of GRPO (arXiv 2402.03300) with decoupled clipping on the same samples: the mean over all sampled
tokens of `-min(r A, clip(r) A)`, gradients clipped by their norm, AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLIP = (0.2, 0.28)
LEARNING_RATE = 1e-9  # so small that whoever has taken a step more still has the same gradients


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt with one reply to it."""

    prompt: list[int]
    completion: list[int]
    advantage: float

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


def draw(prompts: Sequence[int], completions: Sequence[Sequence[int]], vocabulary: int) -> list[Sample]:
    """Random tokens: for each length of a prompt, one prompt with completions of these lengths."""
    rng = np.random.default_rng(0)
    samples = []
    for before, replies in zip(prompts, completions, strict=True):
        prompt = rng.integers(2, vocabulary, before).tolist()
        for after in replies:
            advantage = float(rng.choice([-1.0, 1.0]))
            samples.append(Sample(prompt, rng.integers(2, vocabulary, after).tolist(), advantage))
    return samples
