"""Every program that an engine compiles, each as a call: of arrays to run it, of their shapes and layouts to lower it.

Numbers of rows and tokens are rounded up to buckets, so that there are few programs and all are known at start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx.mesh import pieces
from metaagentx.policy import kernels
from metaagentx.policy.config import ModelConfig
from metaagentx.rollout.compilation import Call
from metaagentx.rollout.draw import Knobs
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.rows import Place, Prompt
from metaagentx.rollout.sampled import CallIds
from metaagentx.rollout.state import EngineState, Weights, decode, empty_state, fill, fork, refill, start

_empty = jax.jit(empty_state, static_argnums=(0, 1, 2, 3, 4))
_fill = jax.jit(fill, static_argnums=(0, 1, 2), donate_argnums=4)
_refill = jax.jit(refill, static_argnums=(0, 1, 2), donate_argnums=4)
_fork = jax.jit(fork, static_argnums=(0, 1), donate_argnums=2)
_start = jax.jit(start, static_argnums=0, donate_argnums=1)
_decode = jax.jit(decode, static_argnums=(0, 1, 2, 3, 4), donate_argnums=6)


@dataclass(frozen=True, slots=True, eq=False)
class Request(Prompt):
    """One queued call."""

    ticket: int
    ids: CallIds
    bound: int
    sampling: SamplingOptions
    bias: int  # a row of the engine's table; 0: none


Placed = tuple[Request, Place]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some tokens of a prompt that are computed."""

    tokens: NDArray[np.int32]
    number: int  # which of the prompt's blocks it is
    reach: int  # tokens of the prompt up to its end
    slot: int
    last: bool  # of its prompt
    adapter: int


class Calls:
    """The calls of one engine.

    Args:
      biases: [N, V] float32, and `truncated`: as `draw` takes them.
      platform: where the programs will run; None: here.
    """

    def __init__(
        self,
        config: ModelConfig,
        options: EngineOptions,
        eos: NDArray[np.int32],
        biases: Any,
        truncated: bool,
        platform: str | None = None,
    ) -> None:
        self.config, self.options, self.eos, self.truncated, self.biases = config, options, eos, truncated, biases
        self.kernel = kernels.for_prompts(options.attention, config, options.prompt_buckets[-1], platform)
        self.decode_kernel = kernels.for_decoding(options.decode_attention, config, platform)
        # The plain kernel holds all scores of a row: to compute it at once has no advantage over blocks.
        self.whole = self.kernel != "dense"
        self.widths = (*options.capacity_buckets, options.capacity)  # that a dispatch of `decode` may attend to
        self.shards = pieces("batch", options.slots)  # that a mesh cuts the slots into
        # Numbers of blocks that are computed at once in each: all of a prompt, as every dispatch reads all weights.
        most = -(-options.prompt_buckets[-1] // options.share_unit)
        self.blocks = tuple(sorted({-(-rows // self.shards) for rows in options.admit_buckets}))
        if not self.whole and most > self.blocks[-1]:
            self.blocks = (*self.blocks, most)

    def empty(self) -> Call:
        """The state without a call."""
        reshaped = self.truncated or self.biases is not None
        return _empty, (self.config, self.decode_kernel, self.options.slots, self.options.row, reshaped)

    @property
    def largest(self) -> tuple[int, int]:
        """Rows, and tokens of each, of the first of `prompts`."""
        if self.whole:
            return self.options.admit_buckets[-1], self.options.prompt_buckets[-1]
        return self.shards * self.blocks[-1], self.options.share_unit

    def all(self, weights: Weights, state: EngineState) -> Iterator[Call]:
        """One of every program, but for `empty`; largest first."""
        yield from self.replies(weights, state)
        yield from self.prompts(weights, state)
        for count in self.options.admit_buckets[::-1]:
            if self.options.share != "none":
                yield from (self.fork(state, count, width, ()) for width in self.options.prompt_buckets[::-1])
            yield self.start(state, count, ())

    def replies(self, weights: Weights, state: EngineState) -> Iterator[Call]:
        """Those that decode, widest first."""
        for width in self.widths[::-1]:
            yield self.decode(weights, state, width, np.zeros(self.options.slots, bool), 0)

    def prompts(self, weights: Weights, state: EngineState) -> Iterator[Call]:
        """Those that compute prompts, largest first."""
        for width in self.options.prompt_buckets[::-1]:
            if self.whole:
                yield from (self.fill(weights, state, rows, width, ()) for rows in self.options.admit_buckets[::-1])
            if not self.whole or self.options.share == "prefix":
                yield from (self.refill(weights, state, rows, width, ()) for rows in self.blocks[::-1])

    def fill(self, weights: Weights, state: EngineState, rows: int, width: int, part: Sequence[Placed]) -> Call:
        """Whole prompts."""
        prompts = _table([prompt.tokens for prompt, _ in part], rows, width)
        lengths, slots, adapter = _columns(
            [(len(prompt.tokens), place.slot, prompt.adapter) for prompt, place in part],
            (1, self.options.slots, -1),
            rows,
        )
        statics = self.config, self.kernel, self.decode_kernel
        return _fill, (*statics, weights, state, prompts, lengths, slots, adapter)

    def refill(
        self, weights: Weights, state: EngineState, rows: int, width: int, parts: Sequence[Sequence[Block]]
    ) -> Call:
        """Blocks of prompts of at most `width` tokens: of each shard one of `parts`, of at most `rows`."""
        nowhere, calls = self.options.slots, []
        for part in parts or [()] * self.shards:
            tokens = _table([block.tokens for block in part], rows, self.options.share_unit)
            columns = _columns(
                [(b.number, len(b.tokens), b.slot, b.slot if b.last else nowhere, b.adapter) for b in part],
                (0, 1, nowhere, nowhere, -1),
                rows,
            )
            calls.append((tokens, *columns))
        columns = [np.concatenate(column) for column in zip(*calls, strict=True)]
        return _refill, (self.config, self.decode_kernel, width, weights, state, *columns)

    def shard(self, slot: int) -> int:
        """Where a slot is."""
        return slot * self.shards // self.options.slots

    def fork(self, state: EngineState, rows: int, width: int, part: Sequence[Placed]) -> Call:
        """Copies of beginnings of at most `width` tokens."""
        columns = _columns([(place.source, place.slot) for _, place in part], (0, self.options.slots), rows)
        return _fork, (self.decode_kernel, width, state, *columns)

    def start(self, state: EngineState, rows: int, part: Sequence[Placed]) -> Call:
        """First tokens."""
        # Columns: slot, length, bound, adapter, then the six ids.
        table = np.zeros((rows, 10), np.int64)
        table[:, 0], table[:, 1:3] = self.options.slots, 1
        if part:
            table[: len(part)] = [(place.slot, len(r.tokens), r.bound, r.adapter, *r.ids) for r, place in part]
        knobs = Knobs.of([request.sampling for request, _ in part], [request.bias for request, _ in part], rows)
        slots, lengths, bound, adapter = table[:, :4].astype(np.int32).T
        ids = table[:, 4:].astype(np.uint32)  # -1, "not there", becomes the largest number
        calls = slots, lengths, ids, bound, knobs, adapter
        return _start, (self.truncated, state, self.eos, *calls, self.biases)

    def decode(self, weights: Weights, state: EngineState, width: int, cancel: NDArray[np.bool_], leave: int) -> Call:
        """One chunk of rows that become no longer than `width`; the rest as in `state.decode`."""
        statics = self.config, self.decode_kernel, self.options.chunk, width, self.truncated
        return _decode, (*statics, weights, state, self.eos, self.biases, cancel, np.int32(leave))


def _table(values: Sequence[NDArray[np.int32]], rows: int, width: int) -> NDArray[np.int32]:
    """[rows, width] with the values [at most width] in it, and zeros."""
    table = np.zeros((rows, width), np.int32)
    for row, value in enumerate(values):
        table[row, : len(value)] = value
    return table


def _columns(values: Sequence[tuple[int, ...]], padding: tuple[int, ...], rows: int) -> list[NDArray[np.int32]]:
    """Each column [rows] of the values, a tuple for a row, with padding below."""
    return [*np.array([*values, *[padding] * (rows - len(values))], np.int32).T]
