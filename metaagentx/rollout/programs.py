"""The compiled programs of one engine, and the state that they hand on to each other.

Numbers of rows and tokens are rounded up to buckets, so that there are few programs and all are known at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from metaagentx.policy import kernels
from metaagentx.policy.config import ModelConfig
from metaagentx.rollout.buckets import fit, portions
from metaagentx.rollout.compilation import Call, compile_all
from metaagentx.rollout.draw import Knobs
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.rows import Place, Prompt
from metaagentx.rollout.sampled import CallIds
from metaagentx.rollout.state import EngineState, Report, Weights, decode, empty_state, fill, fork, refill, start

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


class Programs:
    """The device's side of an engine. Nothing here waits for the device.

    Args:
      biases: [N, V] float32, and `truncated`: as `draw` takes them.
    """

    def __init__(
        self,
        config: ModelConfig,
        options: EngineOptions,
        eos: NDArray[np.int32],
        biases: NDArray[np.float32] | None,
        truncated: bool,
    ) -> None:
        self.config, self.options, self.eos, self.truncated = config, options, eos, truncated
        self.biases = None if biases is None else jnp.asarray(biases)
        self.kernel = kernels.for_prompts(options.attention, config, options.prompt_buckets[-1])
        self.decode_kernel = kernels.for_decoding(options.decode_attention, config)
        self.widths = (*options.capacity_buckets, options.capacity)  # that a dispatch of `decode` may attend to
        state = _empty(config, self.decode_kernel, options.slots, options.capacity, truncated or biases is not None)
        # As programs return it: an array that no program has made would be another type to the compiler.
        self.state: EngineState = jax.device_put(state, jax.tree.map(lambda x: x.sharding, state))

    def prepare(self, weights: Weights) -> list[jax.stages.Compiled]:
        """Compile every program there is, largest first; none runs."""
        return compile_all(self._all(weights))

    def _all(self, weights: Weights) -> Iterator[Call]:
        """A call of every program."""
        rows = self.options.admit_buckets[::-1]
        widths = self.options.prompt_buckets[::-1]
        for width in self.widths[::-1]:
            yield self._decode(weights, width, np.zeros(self.options.slots, bool), 0)
        for width in widths:
            yield from (self._fill(weights, count, width, ()) for count in rows)
            if self.options.share == "prefix":
                rests = [rest for rest in widths if rest < width]
                yield from (self._refill(weights, count, width, rest, ()) for rest in rests for count in rows)
            if self.options.share != "none":
                yield from (self._fork(count, width, ()) for count in rows)
        yield from (self._start(count, ()) for count in rows)

    def place(self, weights: Weights, placed: Iterable[Placed]) -> jax.Array:
        """Put each call's prompt into its row, and start the call. Returns what is known when all has been done."""
        placed = list(placed)
        levels: dict[int, list[Placed]] = {}
        for entry in placed:
            levels.setdefault(entry[1].level, []).append(entry)
        for _, level in sorted(levels.items()):
            self._put(weights, level)
        for begin, end, rows in portions(len(placed), self.options.admit_buckets):
            self.state, first = _made(self._start(rows, placed[begin:end]))
        return first

    def decode(self, weights: Weights, reach: int, cancel: NDArray[np.bool_], leave: int) -> Report:
        """Decode one chunk with rows that become no longer than `reach`; the rest as in `state.decode`."""
        width = fit(reach, self.widths) or self.widths[-1]
        self.state, report = _made(self._decode(weights, width, cancel, leave))
        return report

    def _put(self, weights: Weights, level: Sequence[Placed]) -> None:
        """Fill rows that do not depend on each other, by buckets of whole prompts and of what is computed of them."""
        widths = self.options.prompt_buckets
        groups: dict[tuple[int, int], list[Placed]] = {}
        for prompt, place in level:
            size = len(prompt.tokens)
            whole, rest = fit(size, widths) or widths[-1], fit(size - place.shared, widths) or widths[-1]
            key = (0, whole) if place.shared == size else (rest if place.shared else whole, whole)
            if place.shared < size or place.source != place.slot:
                groups.setdefault(key, []).append((prompt, place))
        # Copies first: they want the logits of rows in which a longer prompt may go on.
        for (rest, width), entries in sorted(groups.items()):
            for begin, end, rows in portions(len(entries), self.options.admit_buckets):
                part = entries[begin:end]
                if not rest:
                    call = self._fork(rows, width, part)
                elif rest == width:
                    call = self._fill(weights, rows, width, part)
                else:
                    call = self._refill(weights, rows, width, rest, part)
                self.state = _made(call)

    def _fill(self, weights: Weights, rows: int, width: int, part: Sequence[Placed]) -> Call:
        prompts, _, lengths, _, slots, adapter = self._table(rows, width, part)
        statics = self.config, self.kernel, self.decode_kernel
        return _fill, (*statics, weights, self.state, prompts, lengths, slots, adapter)

    def _refill(self, weights: Weights, rows: int, width: int, rest: int, part: Sequence[Placed]) -> Call:
        table = self._table(rows, rest, part)
        return _refill, (self.config, self.decode_kernel, width, weights, self.state, *table)

    def _fork(self, rows: int, width: int, part: Sequence[Placed]) -> Call:
        source, slots = np.zeros(rows, np.int32), np.full(rows, self.options.slots, np.int32)
        source[: len(part)] = [place.source for _, place in part]
        slots[: len(part)] = [place.slot for _, place in part]
        return _fork, (self.decode_kernel, width, self.state, source, slots)

    def _start(self, rows: int, part: Sequence[Placed]) -> Call:
        # Columns: slot, length, bound, adapter, then the six ids.
        table = np.zeros((rows, 10), np.int64)
        table[:, 0], table[:, 1:3] = self.options.slots, 1
        if part:
            table[: len(part)] = [(place.slot, len(r.tokens), r.bound, r.adapter, *r.ids) for r, place in part]
        knobs = Knobs.of([request.sampling for request, _ in part], [request.bias for request, _ in part], rows)
        slots, lengths, bound, adapter = table[:, :4].astype(np.int32).T
        ids = table[:, 4:].astype(np.uint32)  # -1, "not there", becomes the largest number
        calls = slots, lengths, ids, bound, knobs, adapter
        return _start, (self.truncated, self.state, self.eos, *calls, self.biases)

    def _decode(self, weights: Weights, width: int, cancel: NDArray[np.bool_], leave: int) -> Call:
        statics = self.config, self.decode_kernel, self.options.chunk, width, self.truncated
        return _decode, (*statics, weights, self.state, self.eos, self.biases, cancel, np.int32(leave))

    def _table(self, rows: int, width: int, part: Sequence[Placed]) -> tuple[NDArray[np.int32], ...]:
        """What is computed of each prompt [rows, width]; then, each [rows]: where that begins, how much it is, the
        source, the slot, the adapter."""
        tokens, numbers = np.zeros((rows, width), np.int32), np.zeros((5, rows), np.int32)
        numbers[1], numbers[3] = 1, self.options.slots
        for row, (prompt, place) in enumerate(part):
            rest = prompt.tokens[place.shared :]
            tokens[row, : len(rest)] = rest
            numbers[:, row] = place.shared, len(rest), max(place.source, 0), place.slot, prompt.adapter
        return tokens, *numbers


def _made(call: Call) -> Any:
    """What a call returns."""
    program, arguments = call
    return program(*arguments)
