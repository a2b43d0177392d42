"""The compiled programs of one engine, and the state that they hand on to each other.

Numbers of rows and tokens are rounded up to buckets, so that there are few programs and all are known at start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some tokens of a prompt that are computed."""

    tokens: NDArray[np.int32]
    number: int  # which of the prompt's blocks it is
    reach: int  # tokens of the prompt up to its end
    slot: int
    last: bool  # of its prompt
    adapter: int


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
        # The plain kernel holds all scores of a row: to compute it at once has no advantage over blocks.
        self.whole = self.kernel != "dense"
        self.widths = (*options.capacity_buckets, options.capacity)  # that a dispatch of `decode` may attend to
        state = _empty(config, self.decode_kernel, options.slots, options.row, truncated or biases is not None)
        # As programs return it: an array that no program has made would be another type to the compiler.
        self.state: EngineState = jax.device_put(state, jax.tree.map(lambda x: x.sharding, state))

    def prepare(self, weights: Weights) -> list[jax.stages.Compiled]:
        """Compile every program there is, largest first; none runs."""
        return compile_all(self._all(weights))

    def _all(self, weights: Weights) -> Iterator[Call]:
        """A call of every program."""
        rows = self.options.admit_buckets[::-1]
        for width in self.widths[::-1]:
            yield self._decode(weights, width, np.zeros(self.options.slots, bool), 0)
        for width in self.options.prompt_buckets[::-1]:
            if self.whole:
                yield from (self._fill(weights, count, width, ()) for count in rows)
            if not self.whole or self.options.share == "prefix":
                yield from (self._refill(weights, count, width, ()) for count in rows)
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
        """Fill rows that do not depend on each other: copy what there is, then compute the rest."""
        options = self.options
        # Copies first: they want the logits of rows in which a longer prompt may go on.
        copied = [entry for entry in level if entry[1].shared and entry[1].source != entry[1].slot]
        for width, group in self._by_width(copied, lambda prompt, place: place.shared):
            for begin, end, rows in portions(len(group), options.admit_buckets):
                self.state = _made(self._fork(rows, width, group[begin:end]))
        whole = [entry for entry in level if self.whole and not entry[1].shared]
        for width, group in self._by_width(whole, lambda prompt, place: len(prompt.tokens)):
            for begin, end, rows in portions(len(group), options.admit_buckets):
                self.state = _made(self._fill(weights, rows, width, group[begin:end]))
        rest = [entry for entry in level if entry[1].shared or not self.whole]
        blocks = [block for prompt, place in rest for block in _blocks(prompt, place, options.share_unit)]
        for begin, end, rows in portions(len(blocks), options.admit_buckets):
            part = blocks[begin:end]
            self.state = _made(self._refill(weights, rows, self._width(max(block.reach for block in part)), part))

    def _by_width(
        self, entries: Sequence[Placed], size: Callable[[Request, Place], int]
    ) -> list[tuple[int, list[Placed]]]:
        """Entries by the bucket of their tokens, of which `size` says the number."""
        groups: dict[int, list[Placed]] = {}
        for entry in entries:
            groups.setdefault(self._width(size(*entry)), []).append(entry)
        return sorted(groups.items())

    def _width(self, size: int) -> int:
        """The bucket of so many tokens of a prompt."""
        return fit(size, self.options.prompt_buckets) or self.options.prompt_buckets[-1]

    def _fill(self, weights: Weights, rows: int, width: int, part: Sequence[Placed]) -> Call:
        prompts = _table([prompt.tokens for prompt, _ in part], rows, width)
        lengths, slots, adapter = _columns(
            [(len(prompt.tokens), place.slot, prompt.adapter) for prompt, place in part],
            (1, self.options.slots, -1),
            rows,
        )
        statics = self.config, self.kernel, self.decode_kernel
        return _fill, (*statics, weights, self.state, prompts, lengths, slots, adapter)

    def _refill(self, weights: Weights, rows: int, width: int, part: Sequence[Block]) -> Call:
        nowhere = self.options.slots
        tokens = _table([block.tokens for block in part], rows, self.options.share_unit)
        columns = _columns(
            [(b.number, len(b.tokens), b.slot, b.slot if b.last else nowhere, b.adapter) for b in part],
            (0, 1, nowhere, nowhere, -1),
            rows,
        )
        return _refill, (self.config, self.decode_kernel, width, weights, self.state, tokens, *columns)

    def _fork(self, rows: int, width: int, part: Sequence[Placed]) -> Call:
        columns = _columns([(place.source, place.slot) for _, place in part], (0, self.options.slots), rows)
        return _fork, (self.decode_kernel, width, self.state, *columns)

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


def _blocks(prompt: Prompt, place: Place, unit: int) -> Iterator[Block]:
    """What of a prompt is computed, in blocks of `unit` tokens."""
    size = len(prompt.tokens)
    for begin in range(place.shared, size, unit):
        tokens = prompt.tokens[begin : begin + unit]
        reach = begin + len(tokens)
        yield Block(tokens, begin // unit, reach, place.slot, reach == size, prompt.adapter)


def _table(values: Sequence[NDArray[np.int32]], rows: int, width: int) -> NDArray[np.int32]:
    """[rows, width] with the values [at most width] in it, and zeros."""
    table = np.zeros((rows, width), np.int32)
    for row, value in enumerate(values):
        table[row, : len(value)] = value
    return table


def _columns(values: Sequence[tuple[int, ...]], padding: tuple[int, ...], rows: int) -> list[NDArray[np.int32]]:
    """Each column [rows] of the values, a tuple for a row, with padding below."""
    return [*np.array([*values, *[padding] * (rows - len(values))], np.int32).T]


def _made(call: Call) -> Any:
    """What a call returns."""
    program, arguments = call
    return program(*arguments)
