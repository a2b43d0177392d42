"""How a library without continuous batching serves the recorded trees: wave after wave of calls.

A wave is as many of the calls that can be made now as there are slots, first come, first served; it lasts until its
longest reply has ended, and nothing is shared between prompts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.ours import buckets
from benchmarks.workload import Replay, prompt_lengths, read_workload

Generate = Callable[[Sequence[Sequence[int]], int], list[list[int]]]  # prompts, tokens of each reply -> replies


def in_waves(generate: Generate, trees: Replay, slots: int) -> dict[str, Any]:
    """One replay."""
    steps = busy = 0
    ready = deque(trees.begin())
    while ready:
        wave = [ready.popleft() for _ in range(min(slots, len(ready)))]
        longest = max(asked.call.reply for asked in wave)
        replies = generate([asked.prompt for asked in wave], longest)
        steps, busy = steps + longest * slots, busy + sum(asked.call.reply for asked in wave)
        for asked, reply in zip(wave, replies, strict=True):
            ready += trees.hear(asked, reply[: asked.call.reply])
    return {"tokens": busy, "occupancy": busy / steps}


class TransformersWaves:
    """Hugging Face `generate`, padded on the left."""

    def __init__(self, dtype: str, questions: int, shrink: float, slots: int) -> None:
        from benchmarks.peers.hf import Transformers

        self.calls, self.slots, self.peer = read_workload(questions, shrink), slots, Transformers(dtype)

    def replay(self) -> dict[str, Any]:
        """One replay."""
        self.trees = Replay(self.calls)
        return in_waves(self.peer.generate, self.trees, self.slots)


class TunixWaves:
    """Tunix's sampler, which its rollout worker calls, with caches as long as ours, compiled before the first turn.

    Its agentic rollout hands this sampler one conversation at a time: in waves it does better than it would there.
    Prompts are padded to as many widths, and waves to as many sizes, as those of our engine.
    """

    def __init__(self, dtype: str, questions: int, shrink: float, slots: int) -> None:
        from benchmarks.peers.tunix import Tunix

        self.calls, self.slots = read_workload(questions, shrink), slots
        lengths = prompt_lengths(self.calls)
        most = max(call.reply for call in self.calls)
        widths = buckets(lengths)
        self.peer, self.sizes = Tunix(dtype, widths[-1] + most, widths), sorted({min(4, slots), slots})
        for width in widths:
            for size in self.sizes:
                self.peer.generate([[1] * width] * size, 2)

    def replay(self) -> dict[str, Any]:
        """One replay."""
        self.trees = Replay(self.calls)
        return in_waves(self.generate, self.trees, self.slots)

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """As the peer's, with rows that are thrown away."""
        size = next(size for size in self.sizes if size >= len(prompts))
        padded = [*prompts, *[prompts[-1]] * (size - len(prompts))]
        return self.peer.generate(padded, tokens)[: len(prompts)]
