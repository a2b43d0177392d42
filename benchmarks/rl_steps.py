"""Contestants that take whole steps of reinforcement learning: the recorded trees, then an update on what was said.

Each has compiled its programs and run them once, on a few tokens, when it has been made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from benchmarks.grpo import CLIP, LEARNING_RATE, Sample
from benchmarks.ours import UNIT, Ours
from benchmarks.peaks import update_flops
from benchmarks.waves import TransformersWaves, TunixWaves
from benchmarks.workload import Replay, prompt_lengths

MICRO = 4  # samples of one pass of a peer, forward and backward; ours is a row, of about as many tokens


TRIAL = [Sample([1] * 8, [1] * 8, 1.0)] * MICRO  # of the update that comes before the first turn


def samples_of(trees: Replay) -> list[Sample]:
    """A sample for each call, in the order of the record; half of the advantages are positive."""
    answered = sorted(trees.answered, key=lambda answer: answer[0].call.number)
    return [Sample([*asked.prompt], [*reply], 1.0 if asked.call.number % 2 else -1.0) for asked, reply in answered]


def timed(replay: Callable[[], dict[str, Any]], update: Callable[[], object]) -> dict[str, Any]:
    """What a replay found, and the wall seconds of both halves of a step."""
    begun = time.perf_counter()
    found = replay()
    middle = time.perf_counter()
    update()
    return found | {"rollout_seconds": middle - begun, "update_seconds": time.perf_counter() - middle}


class OursStep:
    """Our engine and our update, of packed rows; what is sampled with is what was trained."""

    def __init__(self, dtype: str, questions: int, shrink: float, slots: int, options: dict[str, Any]) -> None:
        from benchmarks import grpo_step
        from metaagentx.learn.options import PackOptions

        self.trainer = grpo_step.Ours(dtype, LEARNING_RATE, CLIP)
        self.rollout = Ours(dtype, questions, shrink, slots, options)
        calls = self.rollout.calls
        lengths = [before + call.reply for before, call in zip(prompt_lengths(calls), calls, strict=True)]
        self.tokens = sum(lengths)
        width = -(-max(lengths) // UNIT) * UNIT
        rows = -(-self.tokens // width) + 3  # packing leaves gaps; a row that nothing came into is skipped
        self.pack = PackOptions(width, (rows,), micro_rows=1, chunk=width, remat="none", attention="auto")
        self.trainer.step(TRIAL, self.pack)
        self.rollout.params = self.trainer.state.params
        self.rollout.rehearse()  # to JAX, weights that are committed to a device are another input

    def step(self) -> dict[str, Any]:
        """One step. Seconds are wall time."""
        self.rollout.params = self.trainer.state.params
        found = timed(self.rollout.replay, lambda: self.trainer.step(samples_of(self.rollout.trees), self.pack))
        weights = sum(array.size for array in jax.tree.leaves(self.trainer.state.params))
        return found | {"update_flops": update_flops(weights, self.tokens, found["update_seconds"])}


class TorchStep:
    """Hugging Face `generate` in waves, and a torch GRPO step of padded batches."""

    def __init__(self, dtype: str, questions: int, shrink: float, slots: int) -> None:
        from benchmarks.peers.torch_grpo import TorchGrpo

        self.trainer = TorchGrpo(dtype, LEARNING_RATE, CLIP)
        self.rollout = TransformersWaves(dtype, questions, shrink, slots)
        self.trainer.model.generation_config = self.rollout.peer.model.generation_config
        self.rollout.peer.model = self.trainer.model
        self.rollout.peer.generate([[1] * 8] * slots, 2)
        self.trainer.step(TRIAL, MICRO)

    def step(self) -> dict[str, Any]:
        """One step. Seconds are wall time."""
        self.trainer.model.eval()
        return timed(self.rollout.replay, self.update)

    def update(self) -> None:
        """The samples in batches of `MICRO` of like length, whose gradients add up, as ours do."""
        self.trainer.model.train()
        self.trainer.step(_by_length(samples_of(self.rollout.trees)), MICRO)


class TunixStep:
    """Tunix's sampler in waves, and its trainer. It need not hand its weights on: they were loaded twice."""

    def __init__(self, dtype: str, questions: int, shrink: float, slots: int) -> None:
        from benchmarks.peers.tunix_grpo import TunixGrpo

        self.rollout = TunixWaves(dtype, questions, shrink, slots)
        calls = self.rollout.calls
        before, after = max(prompt_lengths(calls)), max(call.reply for call in calls)
        widths = (-(-before // UNIT) * UNIT, -(-after // UNIT) * UNIT)
        self.trainer = TunixGrpo(dtype, LEARNING_RATE, CLIP, widths, MICRO, batches=-(-len(calls) // MICRO))

    def step(self) -> dict[str, Any]:
        """One step. Seconds are wall time."""
        return timed(self.rollout.replay, self.update)

    def update(self) -> None:
        """The samples in batches of `MICRO`, all of one shape, whose gradients add up, as ours do."""
        for batch in _batches(samples_of(self.rollout.trees)):
            self.trainer.step([*batch, *[batch[-1]] * (MICRO - len(batch))])


def _batches(samples: Sequence[Sample]) -> list[list[Sample]]:
    ordered = _by_length(samples)
    return [ordered[begin : begin + MICRO] for begin in range(0, len(ordered), MICRO)]


def _by_length(samples: Sequence[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.tokens)
