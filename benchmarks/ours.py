"""metaagentx's own engine as a contestant."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.peaks import decode_bandwidth
from benchmarks.worker import Turn, measured
from benchmarks.workload import Asked, Call, Replay, prompt_lengths, read_workload
from metaagentx.policy import params
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.gguf import read_gguf_config
from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.load import load
from metaagentx.policy.params import Params
from metaagentx.rollout.compilation import count_compilations
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.sampled import Ask

UNIT = 32  # tokens: buckets are multiples of it


def buckets(lengths: Sequence[int], shares: Sequence[float] = (0.4, 0.8, 1.0)) -> tuple[int, ...]:
    """Widths that hold these shares of the lengths."""
    return tuple(sorted({-int(np.quantile(lengths, share, method="higher")) // UNIT * -UNIT for share in shares}))


class Ours:
    """Replays of the recorded trees by the engine.

    Args:
      dtype: of weights and cache.
      questions, shrink: of the workload.
      options: of the engine, beside its shapes.
      stand_in: a model of one narrow layer instead of SmolLM2: what the host decides does not depend on the weights.
      weights: to begin with; None: those of the file.
      prefill: ask for one token of each reply; the others, which later turns read, are made up.
    """

    def __init__(
        self,
        dtype: str,
        questions: int,
        shrink: float,
        slots: int,
        options: dict[str, Any],
        stand_in: bool = False,
        weights: Params | None = None,
        prefill: bool = False,
    ) -> None:
        self.prefill = prefill
        self.calls = read_workload(questions, shrink)
        lengths = prompt_lengths(self.calls)
        rows = [prompt + call.reply for prompt, call in zip(lengths, self.calls, strict=True)]
        widths = buckets(rows, (0.5, 0.85, 1.0))
        path = find_smollm2()
        config = read_gguf_config(path, dtype)
        if stand_in:
            config = dataclasses.replace(config, layers=1, d_model=16, d_ff=16, heads=1, kv_heads=1, head_dim=16)
            config = dataclasses.replace(config, vocab_size=4096)
        if weights is None:
            weights = params.initialise(config, jax.random.key(0)) if stand_in else load(path, config)
        self.params = weights
        shapes = EngineOptions(
            slots=slots,
            capacity=widths[-1],
            prompt_buckets=buckets(lengths, (0.8, 1.0)),
            admit_buckets=(1, 4, 16),
            capacity_buckets=widths[:-1],
            **options,
        )
        self.start = measured(self._start, config, shapes)
        self.rehearse()

    def rehearse(self) -> None:
        """A replay of short replies: XLA makes a plan for every product when a program first runs."""
        self._serve([dataclasses.replace(call, reply=min(call.reply, 3)) for call in self.calls])

    def _start(self, config: ModelConfig, shapes: EngineOptions) -> int:
        """The engine from its construction until it can take a call; its number of programs."""
        self.engine = Engine(config, shapes, ())
        self.engine.load(self.params, version=0)
        return len(self.engine.warmup())

    def started(self) -> Turn:
        """What the engine's start took, and how many programs it has."""
        return self.start

    def replay(self) -> dict[str, Any]:
        """One replay from empty caches. Seconds are wall time."""
        return self._serve(self.calls)

    def _serve(self, calls: Sequence[Call]) -> dict[str, Any]:
        engine, waiting = self.engine, dict[int, Asked]()
        trees = self.trees = Replay(calls)
        engine.load(self.params, version=engine.version + 1)
        engine.take_work()

        def ask(asked: Asked) -> None:
            call = asked.call
            waiting[call.number] = asked
            sampling = SamplingOptions(temperature=1.0, max_tokens=1 if self.prefill else call.reply)
            ids = (0, engine.version, *call.place, call.number)
            prompt = np.array(asked.prompt, np.int32) % engine.config.vocab_size  # smaller in a stand-in
            engine.submit(Ask(call.number, prompt, ids, sampling, call.role, call.conversation))

        begun = time.perf_counter()
        with count_compilations() as compilations:
            for asked in trees.begin():
                ask(asked)
            while waiting:
                more: list[Asked] = []
                for ticket, sampled in engine.step():
                    asked = waiting.pop(ticket)
                    if not asked.call.last:
                        engine.hold(asked.call.conversation)  # its tool works while the others decode
                    reply = sampled.tokens.tolist()
                    rest = np.random.default_rng(ticket).integers(4096, size=asked.call.reply - len(reply))
                    more += trees.hear(asked, reply + rest.tolist())
                for asked in more:
                    ask(asked)
        seconds, work = time.perf_counter() - begun, engine.take_work()
        weights, cache = self.bytes()
        steps = work.slot_steps // engine.options.slots
        return {
            "tokens": work.generated_tokens,
            "prompt_tokens": work.prompt_tokens,
            "prefilled_tokens": work.prefilled_tokens,
            "occupancy": work.busy_slot_steps / max(work.slot_steps, 1),
            "prefill_seconds": work.prefill_seconds,
            "decode_seconds": work.decode_seconds,
            "decode_bandwidth": decode_bandwidth(weights, cache, steps, work.decode_seconds) if steps else 0.0,
            "host_seconds": seconds - work.prefill_seconds - work.decode_seconds,
            "compilations": compilations.count,
        }

    def bytes(self) -> tuple[int, int]:
        """Of the weights, and of the cache rows that the tokens of all replies attend to."""
        config = self.engine.config
        lengths = zip(prompt_lengths(self.calls), self.calls, strict=True)
        reads = sum(call.reply * (2 * before + call.reply) // 2 for before, call in lengths)
        row = 2 * config.layers * config.kv_heads * config.head_dim * np.dtype(config.dtype).itemsize
        return sum(array.nbytes for array in jax.tree.leaves(self.params)), reads * row
