"""Continuous batching: a small host loop around the pure functions of `state`.

Every `step` starts queued calls in the free slots, decodes one chunk, and hands back what finished. Calls that share
a prompt are prefilled once and forked, also from a slot that merely still holds that prompt. What a call gets
depends on its ids and the weights, not on slots, chunks or neighbours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx.policy.adapters import stack
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.policy.params import Params, whole
from metaagentx.rollout.buckets import fit, portions
from metaagentx.rollout.options import EngineOptions
from metaagentx.rollout.sampled import Ask, CallIds, Sampled
from metaagentx.rollout.state import Weights, decode, empty_state, fill, start
from metaagentx.workflow.protocol import Outcome

_empty = jax.jit(empty_state, static_argnums=(0, 1, 2))
_fill = jax.jit(fill, static_argnums=(0, 1), donate_argnums=3)
_start = jax.jit(start, static_argnums=0, donate_argnums=1)
_decode = jax.jit(decode, static_argnums=(0, 1), donate_argnums=3)
_stack = jax.jit(stack)
_whole = jax.jit(whole, static_argnums=0)

Content = tuple[int, bytes]  # the adapter and the prompt's bytes: calls with both in common share a prefill
NOTHING = Sampled(np.zeros(0, np.int32), np.zeros(0, np.float32), Outcome.TOO_LONG)


@dataclass(frozen=True, slots=True)
class Request:
    """One queued call."""

    ticket: int
    prompt: NDArray[np.int32]
    adapter: int  # -1: none
    content: Content
    ids: CallIds
    bound: int
    temperature: float


Placed = tuple[Request, int, int]  # a call, its slot, and the slot that its prompt is copied from


@dataclass(slots=True)
class Work:
    """What an engine did since it was last asked."""

    calls: int = 0
    prompt_tokens: int = 0  # of the calls started
    prefilled_tokens: int = 0  # computed
    generated_tokens: int = 0
    slot_steps: int = 0  # slots x decode steps
    busy_slot_steps: int = 0  # of these, with an active call
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def forked_tokens(self) -> int:
        """Prompt tokens that were copied instead of computed."""
        return self.prompt_tokens - self.prefilled_tokens


class Engine:
    """Samples replies for one set of weights. See `sampled.Sampler` for the contract.

    Args:
      config: the model's constants.
      options: static shapes.
      eos_ids: ids that end a reply.
      lora: if roles have adapters, what these are.
    """

    def __init__(
        self, config: ModelConfig, options: EngineOptions, eos_ids: Iterable[int], lora: LoraOptions | None = None
    ) -> None:
        if options.capacity > config.max_length:
            raise ValueError(
                f"engine.capacity ({options.capacity}) must not be above model.max_length ({config.max_length})"
            )
        self.config, self.options, self.lora = config, options, lora
        self.eos = np.array(sorted(set(eos_ids)), np.int32)
        self.version = -1
        self.work = Work()
        self._weights: Weights | None = None
        self._adapters: dict[str, int] = {}  # by role
        self._state = _empty(config, options.slots, options.capacity)
        self._queue: deque[Request] = deque()
        self._refused: list[int] = []  # tickets of prompts that do not fit
        self._free: dict[int, None] = dict.fromkeys(range(options.slots))  # in the order in which they became free
        self._running: dict[int, Request] = {}  # by slot
        self._content: dict[int, Content] = {}  # the prompt that a slot's cache begins with
        self._holder: dict[Content, int] = {}  # a slot that holds a prompt

    def load(self, params: Params, version: int, adapters: Mapping[str, Params] | None = None) -> None:
        """Use these weights from now on, and each role its adapter, if it has one. Every cache row is forgotten.

        Raises:
          ValueError: adapters without `lora` or the reverse, or of other roles than before: their number is compiled.
        """
        if self._running or self._queue:
            raise RuntimeError("engine.load while calls are in flight: finish them first")
        if bool(adapters) != (self.lora is not None):
            raise ValueError(f"engine.load: {'no ' if self.lora else ''}adapters, but the engine's lora is {self.lora}")
        roles = {role: number for number, role in enumerate(sorted(adapters or ()))}
        if self._weights is not None and roles != self._adapters:
            raise ValueError(f"engine.load: adapters of {[*roles]}, but this engine has those of {[*self._adapters]}")
        self._adapters, self.version = roles, version
        if self.options.whole:
            self._weights = None  # the last copy makes room
            params = _whole(self.config, params)
        self._weights = Weights(params, _stack([adapters[role] for role in roles]) if adapters else None, self.lora)
        self._content.clear()
        self._holder.clear()

    def warmup(self) -> None:
        """Compile every shape there is, largest first, without touching any slot."""
        weights, slots = self._loaded(), self.options.slots
        for width in reversed(self.options.prompt_buckets):
            for rows in reversed(self.options.admit_buckets):
                nowhere = np.full(rows, slots, np.int32)
                zeros, ones = np.zeros(rows, np.int32), np.ones(rows, np.int32)
                prompts = np.zeros((rows, width), np.int32)
                self._state = _fill(
                    self.config, self.options.attention, weights, self._state, prompts, ones, nowhere, zeros
                )
                ids = np.zeros((rows, 6), np.uint32)
                heat = np.zeros(rows, np.float32)
                self._state = _start(width, self._state, self.eos, zeros, nowhere, ones, ids, ones, heat, zeros)
        self._state = _decode(self.config, self.options.chunk, weights, self._state, self.eos)
        jax.block_until_ready(self._state)

    def room(self, reply: int) -> int:
        """Tokens of the longest prompt beside a reply of `reply` tokens; half of the capacity is for prompts anyway."""
        capacity = self.options.capacity
        return min(self.options.prompt_buckets[-1], max(capacity - reply, capacity // 2))

    def submit(self, ask: Ask) -> None:
        """Queue one call; its reply comes out of a later `step`. An empty prompt is an error."""
        prompt, sampling = ask.prompt, ask.sampling
        if not len(prompt):
            raise ValueError(f"call {ask.ids}: the prompt is empty")
        self.work.calls += 1
        bound = min(sampling.max_tokens, self.options.capacity - len(prompt))
        if bound < 1 or len(prompt) > self.options.prompt_buckets[-1]:
            self._refused.append(ask.ticket)
            return
        adapter = self._adapters.get(ask.role, -1)
        content = (adapter, prompt.tobytes())
        self._queue.append(Request(ask.ticket, prompt, adapter, content, ask.ids, bound, sampling.temperature))

    def hold(self, conversation: int) -> None:
        """What a slot holds stays until another call needs it."""

    def step(self) -> list[tuple[int, Sampled]]:
        """Start what fits, decode one chunk; (ticket, reply) of every call that ended, in the order of slots."""
        done = [(ticket, NOTHING) for ticket in self._refused]
        self._refused.clear()
        if self._queue and self._free:
            begun = time.perf_counter()
            self._admit([self._queue.popleft() for _ in range(min(len(self._queue), len(self._free)))])
            jax.block_until_ready(self._state.token)
            self.work.prefill_seconds += time.perf_counter() - begun
        if self._running:
            begun = time.perf_counter()
            self._state = _decode(self.config, self.options.chunk, self._loaded(), self._state, self.eos)
            done += self._harvest()
            self.work.decode_seconds += time.perf_counter() - begun
        return done

    def take_work(self) -> Work:
        """What was done since the last time this was asked."""
        work, self.work = self.work, Work()
        return work

    def _loaded(self) -> Weights:
        if self._weights is None:
            raise RuntimeError("engine: load weights before sampling")
        return self._weights

    def _admit(self, wave: Sequence[Request]) -> None:
        """Give every call of the wave a slot, prefill the prompts that no slot holds, then start all."""
        groups: dict[Content, list[Request]] = {}
        for request in wave:
            groups.setdefault(request.content, []).append(request)
            self.work.prompt_tokens += len(request.prompt)

        # A free slot that holds a wanted prompt goes to a call that wants it, before anything can overwrite it.
        sources: dict[Content, int] = {}
        started: list[Placed] = []
        for content, group in groups.items():
            if content in self._holder:
                sources[content] = self._holder[content]
                if sources[content] in self._free:
                    del self._free[sources[content]]
                    started.append((group.pop(), sources[content], sources[content]))
        prefilled: list[Placed] = []
        for content, group in groups.items():
            for request in group:
                slot = self._take_slot()
                if content not in sources:
                    sources[content] = slot
                    prefilled.append((request, slot, slot))
                started.append((request, slot, sources[content]))

        for request, slot, _ in started:
            self._running[slot] = request
            self._content[slot] = request.content
            self._holder[request.content] = slot
        self._fill(prefilled)
        self._start(started)

    def _take_slot(self) -> int:
        """The slot that has been free for longest; the prompt it held is forgotten."""
        slot = next(iter(self._free))
        del self._free[slot]
        content = self._content.pop(slot, None)
        if content is not None and self._holder.get(content) == slot:
            del self._holder[content]
        return slot

    def _dispatches(self, placed: list[Placed]) -> Iterator[tuple[int, int, list[Placed]]]:
        """(prompt bucket, admit bucket, calls): calls sorted by prompt bucket and cut into admit buckets."""
        by_width: dict[int, list[Placed]] = {}
        widths = self.options.prompt_buckets
        for entry in placed:
            by_width.setdefault(fit(len(entry[0].prompt), widths) or widths[-1], []).append(entry)
        for width, entries in sorted(by_width.items()):
            for begin, end, rows in portions(len(entries), self.options.admit_buckets):
                yield width, rows, entries[begin:end]

    def _fill(self, placed: list[Placed]) -> None:
        weights = self._loaded()
        for width, rows, part in self._dispatches(placed):
            prompts, lengths = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
            slots, adapter = np.full(rows, self.options.slots, np.int32), np.zeros(rows, np.int32)
            for row, (request, slot, _) in enumerate(part):
                length = len(request.prompt)
                prompts[row, :length], lengths[row], slots[row] = request.prompt, length, slot
                adapter[row] = request.adapter
                self.work.prefilled_tokens += length
            self._state = _fill(
                self.config, self.options.attention, weights, self._state, prompts, lengths, slots, adapter
            )

    def _start(self, placed: list[Placed]) -> None:
        for width, rows, part in self._dispatches(placed):
            count = len(part)
            # Columns: slot, source, length, bound, adapter, then the six ids.
            table = np.zeros((rows, 11), np.int64)
            table[:, 0], table[:, 2:4] = self.options.slots, 1
            table[:count] = [(slot, source, len(r.prompt), r.bound, r.adapter, *r.ids) for r, slot, source in part]
            temperature = np.zeros(rows, np.float32)
            temperature[:count] = [request.temperature for request, _, _ in part]
            slots, source, lengths, bound, adapter = table[:, :5].astype(np.int32).T
            ids = table[:, 5:].astype(np.uint32)  # -1, "not there", becomes the largest number
            self._state = _start(width, self._state, self.eos, source, slots, lengths, ids, bound, temperature, adapter)

    def _harvest(self) -> list[tuple[int, Sampled]]:
        """The calls that ended; their slots are free again."""
        state = self._state
        active, count, tokens, logprobs, steps, busy = jax.device_get(
            (state.active, state.count, state.tokens, state.logprobs, state.steps, state.busy)
        )
        self.work.slot_steps += int(steps) * self.options.slots
        self.work.busy_slot_steps += int(busy)
        done = []
        for slot in [slot for slot in np.flatnonzero(~active).tolist() if slot in self._running]:
            request, length = self._running.pop(slot), int(count[slot])
            self._free[slot] = None
            reply = tokens[slot, :length].copy()
            if int(reply[-1]) not in self.eos:
                outcome = Outcome.CUT
            else:
                outcome = Outcome.OK if length > 1 else Outcome.EMPTY
            done.append((request.ticket, Sampled(reply, logprobs[slot, :length].copy(), outcome)))
            self.work.generated_tokens += length
        return done
