"""Contestants that take whole steps of reinforcement learning: the recorded trees, then an update on what was said.

Each has compiled its programs and run them once, on a few tokens, when it has been made.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.grpo import CLIP, LEARNING_RATE, Sample
from benchmarks.ours import UNIT, Ours
from benchmarks.peaks import update_flops
from benchmarks.waves import TransformersWaves, TunixWaves
from benchmarks.workload import Call, Replay, prompt_lengths, read_workload
from metaagentx.learn.options import PackOptions
from metaagentx.learn.share import grow

MICRO = 4  # samples of one pass of a peer, forward and backward; ours is a row, of about as many tokens
WIDEST = 1024  # tokens of a row of ours
KEY = 1 / 1200  # what one more key costs a token of SmolLM2's update, as a share of its products with weights, on a CPU

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


def as_recorded(calls: Sequence[Call]) -> list[Sample]:
    """Samples of the recorded lengths and prompts, whose replies have nothing in common."""
    trees, fresh = Replay(calls), itertools.count()
    ready = trees.begin()
    while ready:
        asked = ready.pop()
        ready += trees.hear(asked, [next(fresh) for _ in range(asked.call.reply)])
    return samples_of(trees)


def layout(samples: Sequence[Sample], unit: int = 64) -> PackOptions:
    """The rows, of parts that are multiples of `unit`, in which these samples with shared prompts cost least."""
    tokens = [np.array(sample.prompt + sample.completion, np.int32) for sample in samples]
    masks = [np.arange(sample.tokens) >= len(sample.prompt) for sample in samples]
    found: list[tuple[float, int, int, int, int]] = []
    for trunk, branch, branches in itertools.product(*[range(unit, WIDEST, unit)] * 2, (1, 2, 3, 4)):
        width = trunk + branches * branch
        # A prompt that is too long for the trunk stays in front of its reply.
        longest = max(len(s.completion) + (1 if len(s.prompt) <= trunk else len(s.prompt)) for s in samples)
        if longest <= branch and width <= WIDEST:
            rows = grow(tokens, masks, trunk, branches, branch).rows
            found.append((rows * width * (1 + KEY * (trunk + branch / 2)), rows, trunk, branch, branches))
    _, rows, trunk, branch, branches = min(found)
    return PackOptions(
        row_length=branch,
        row_buckets=(rows,),
        micro_rows=1,
        chunk=-(-(trunk + branches * branch) // 4),  # all that is sampled is in the branches
        remat="none",
        attention="auto",
        unroll=True,
        prompt_length=trunk,
        sample_rows=branches,
    )


class OursStep:
    """Our engine and our update, of packed rows with shared prompts; what is sampled with is what was trained."""

    def __init__(self, dtype: str, questions: int, shrink: float, slots: int, options: dict[str, Any]) -> None:
        from benchmarks import grpo_step

        samples = as_recorded(read_workload(questions, shrink))
        self.tokens, self.pack = sum(sample.tokens for sample in samples), layout(samples)
        self.trainer = grpo_step.Ours(dtype, LEARNING_RATE, CLIP)
        self.trainer.step(TRIAL, self.pack)
        # Weights that an update returns are committed to a device: to JAX another input than those of a file.
        self.rollout = Ours(dtype, questions, shrink, slots, options, weights=self.trainer.state.params)

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
