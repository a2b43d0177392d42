"""The compiled programs of one engine at work, and the state that they hand on to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.buckets import fit, portions
from metaagentx.rollout.calls import Block, Calls, Placed, Request
from metaagentx.rollout.compilation import Call, compile_all
from metaagentx.rollout.rows import Place, Prompt
from metaagentx.rollout.state import EngineState, Report, Weights


class Programs:
    """The device's side of an engine. Nothing here waits for the device."""

    def __init__(self, calls: Calls) -> None:
        self.calls, self.options = calls, calls.options
        state = _made(calls.empty())
        # As programs return it: an array that no program has made would be another type to the compiler.
        self.state: EngineState = jax.device_put(state, jax.tree.map(lambda x: x.sharding, state))

    def prepare(self, weights: Weights) -> list[jax.stages.Compiled]:
        """Compile every program there is, largest first; none runs."""
        return compile_all(self.calls.all(weights, self.state))

    def place(self, weights: Weights, placed: Iterable[Placed]) -> jax.Array:
        """Put each call's prompt into its row, and start the call. Returns what is known when all has been done."""
        placed = list(placed)
        levels: dict[int, list[Placed]] = {}
        for entry in placed:
            levels.setdefault(entry[1].level, []).append(entry)
        for _, level in sorted(levels.items()):
            self._put(weights, level)
        for begin, end, rows in portions(len(placed), self.options.admit_buckets):
            self.state, first = _made(self.calls.start(self.state, rows, placed[begin:end]))
        return first

    def decode(self, weights: Weights, reach: int, cancel: NDArray[np.bool_], leave: int) -> Report:
        """Decode one chunk with rows that become no longer than `reach`; the rest as in `state.decode`."""
        width = fit(reach, self.calls.widths) or self.calls.widths[-1]
        self.state, report = _made(self.calls.decode(weights, self.state, width, cancel, leave))
        return report

    def _put(self, weights: Weights, level: Sequence[Placed]) -> None:
        """Fill rows that do not depend on each other: copy what there is, then compute the rest."""
        options, calls = self.options, self.calls
        # Copies first: they want the logits of rows in which a longer prompt may go on.
        copied = [entry for entry in level if entry[1].shared and entry[1].source != entry[1].slot]
        for width, group in self._by_width(copied, lambda prompt, place: place.shared):
            for begin, end, rows in portions(len(group), options.admit_buckets):
                self.state = _made(calls.fork(self.state, rows, width, group[begin:end]))
        whole = [entry for entry in level if calls.whole and not entry[1].shared]
        for width, group in self._by_width(whole, lambda prompt, place: len(prompt.tokens)):
            for begin, end, rows in portions(len(group), options.admit_buckets):
                self.state = _made(calls.fill(weights, self.state, rows, width, group[begin:end]))
        rest = [entry for entry in level if entry[1].shared or not calls.whole]
        blocks: list[list[Block]] = [[] for _ in range(calls.shards)]
        for prompt, place in rest:
            blocks[calls.shard(place.slot)] += _blocks(prompt, place, options.share_unit)
        for begin, end, rows in portions(max(map(len, blocks)), calls.blocks):
            parts = [part[begin:end] for part in blocks]
            width = self._width(max(block.reach for part in parts for block in part))
            self.state = _made(calls.refill(weights, self.state, rows, width, parts))

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


def _blocks(prompt: Prompt, place: Place, unit: int) -> Iterator[Block]:
    """What of a prompt is computed, in blocks of `unit` tokens."""
    size = len(prompt.tokens)
    for begin in range(place.shared, size, unit):
        tokens = prompt.tokens[begin : begin + unit]
        reach = begin + len(tokens)
        yield Block(tokens, begin // unit, reach, place.slot, reach == size, prompt.adapter)


def _made(call: Call) -> Any:
    """What a call returns."""
    program, arguments = call
    return program(*arguments)
