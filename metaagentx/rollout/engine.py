"""Continuous batching: a small host loop around the compiled programs of `programs`.

Every `step` gives free slots to queued calls, has one chunk decoded, and hands back what finished. Prompts begin as
others did: what they share is copied (`rows`). With `engine.ahead` the device decodes the next chunk while the host
reads the last. What a call gets depends on its ids and the weights, and but for rounding not on slots, chunks, sharing
or neighbours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from metaagentx.policy.adapters import stack
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.policy.decode import separate
from metaagentx.policy.params import Params, whole
from metaagentx.policy.quantise import in_eight_bits
from metaagentx.rollout.bias import Biases
from metaagentx.rollout.calls import Calls, Request
from metaagentx.rollout.options import EngineOptions
from metaagentx.rollout.programs import Programs
from metaagentx.rollout.replies import Expected, Replies
from metaagentx.rollout.rows import Rows
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.rollout.state import Report, Weights
from metaagentx.rollout.stop import StopFinder
from metaagentx.rollout.work import Clock, Work
from metaagentx.workflow.protocol import Outcome

_stack = jax.jit(stack)
_whole = jax.jit(whole, static_argnums=0)

NOTHING = Sampled(np.zeros(0, np.int32), np.zeros(0, np.float32), Outcome.TOO_LONG)


@dataclass(frozen=True, slots=True)
class Flight:
    """A chunk that the device is at, or will be."""

    report: Report
    expected: Expected
    first: jax.Array | None  # known when the prompts before the chunk are done; None if there were none
    begun: float


class Engine:
    """Samples replies for one set of weights. See `sampled.Sampler` for the contract.

    Args:
      config: the model's constants.
      options: static shapes.
      eos_ids: ids that end a reply.
      lora: if roles have adapters, what these are.
      biases: of the calls that have any.
      truncated: whether calls may have a top_k or top_p.
      decode: the text of ids, for calls with stop strings; `special` ids have none.
    """

    def __init__(
        self,
        config: ModelConfig,
        options: EngineOptions,
        eos_ids: Iterable[int],
        lora: LoraOptions | None = None,
        biases: Biases | None = None,
        truncated: bool = False,
        decode: Callable[[Sequence[int]], str] | None = None,
        special: Iterable[int] = (),
    ) -> None:
        if options.capacity > config.max_length:
            raise ValueError(
                f"engine.capacity ({options.capacity}) must not be above model.max_length ({config.max_length})"
            )
        self.config, self.options, self.lora = config, options, lora
        self.biases, self.truncated, self.decode = biases, truncated, decode
        self.eos = np.array(sorted(set(eos_ids)), np.int32)
        self.special = frozenset(special).union(self.eos.tolist())
        self.version = -1
        self.work = Work()
        self._weights: Weights | None = None
        self._adapters: dict[str, int] = {}  # by role
        table = None if biases is None else jnp.asarray(biases.table)
        self._programs = Programs(Calls(config, options, self.eos, table, truncated))
        self._queue: deque[Request] = deque()
        self._refused: list[int] = []  # tickets of prompts that do not fit
        self._flights: deque[Flight] = deque()
        self._clock = Clock()
        self._cancel = np.zeros(options.slots, bool)  # slots that the device has still to be told of
        self._forget()

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
        self._weights = None  # the last copy makes room
        if self.options.whole:
            params = _whole(self.config, params)
        if self.options.weights == "int8":
            params = in_eight_bits(self.config, params)
        if self.options.separates(jax.default_backend()):
            params = separate(params, self.config)
        self._weights = Weights(params, _stack([adapters[role] for role in roles]) if adapters else None, self.lora)
        self._forget()

    def warmup(self) -> list[jax.stages.Compiled]:
        """Compile every program there is, largest first; none runs."""
        return self._programs.prepare(self._loaded())

    def room(self, reply: int) -> int:
        """Tokens of the longest prompt beside a reply of `reply` tokens; half of the capacity is for prompts anyway."""
        capacity = self.options.capacity
        return min(self.options.prompt_buckets[-1], max(capacity - reply, capacity // 2))

    def submit(self, ask: Ask) -> None:
        """Queue one call; its reply comes out of a later `step`. An empty prompt is an error."""
        prompt, sampling = ask.prompt, ask.sampling
        if not len(prompt):
            raise ValueError(f"call {ask.ids}: the prompt is empty")
        if sampling.stop and self.decode is None:
            raise ValueError(f"call {ask.ids}: there are stop strings, but the engine has no decoder")
        if sampling.truncated and not self.truncated:
            raise ValueError(f"call {ask.ids}: there is a top_k or top_p, but the engine was made without")
        if sampling.biased and self.biases is None:
            raise ValueError(f"call {ask.ids}: there is a bias or mask, but the engine was made without")
        self.work.calls += 1
        bound = min(sampling.max_tokens, self.options.capacity - len(prompt))
        if bound < 1 or len(prompt) > self.options.prompt_buckets[-1]:
            self._refused.append(ask.ticket)
            self._rows.release(ask.conversation)  # a later turn would be longer still
            return
        adapter = self._adapters.get(ask.role, -1)
        bias = 0 if self.biases is None else self.biases.row(ask.role, sampling)
        self._queue.append(Request(prompt, adapter, ask.conversation, ask.ticket, ask.ids, bound, sampling, bias))

    def hold(self, conversation: int) -> None:
        """Others work for this dialogue: with `engine.during_tools` "keep", its row waits for the next turn."""
        if self.options.during_tools == "keep":
            self._rows.hold(conversation)

    def release(self, conversation: int) -> None:
        """This dialogue has ended: no row waits for it."""
        self._rows.part(conversation)

    def drop(self) -> None:
        """Forget every call and every row; what the device is still to decode, nobody reads."""
        self._cancel[:] = True
        self._queue.clear()
        self._refused.clear()
        self._forget()

    def step(self) -> list[tuple[int, Sampled]]:
        """Start what fits, have one chunk decoded; (ticket, reply) of the calls that ended, in the order of slots."""
        done = [(ticket, NOTHING) for ticket in self._refused]
        self._refused.clear()
        if self._queue or self._running:
            weights = self._loaded()
            wave = self._admit()
            first = self._begin(weights, wave) if wave else None
            if self._running:
                self._fly(weights, first)
        while len(self._flights) > (self.options.ahead if self._running else 0):
            done += self._land()
        return done

    def watch(self, clock: Clock) -> None:
        """Count what is done from now on. `clock`: that of all engines whose work is added up."""
        self.work, self._clock = Work(), clock

    def take_work(self) -> Work:
        """What was done since the last time this was asked."""
        work, self.work = self.work, Work()
        return work

    def _forget(self) -> None:
        """Every row is free and holds nothing."""
        options = self.options
        shards = self._programs.calls.shards
        self._rows = Rows(options.slots, options.capacity, options.share, options.share_unit, shards)
        reshaped = self.truncated or self.biases is not None
        self._replies = Replies(options.slots, options.capacity, reshaped)
        self._running: dict[int, Request] = {}  # by slot
        self._stops: dict[int, StopFinder] = {}  # by slot, of calls with stop strings
        self._flights.clear()  # nothing that runs is in them

    def _loaded(self) -> Weights:
        if self._weights is None:
            raise RuntimeError("engine: load weights before sampling")
        return self._weights

    def _admit(self) -> list[Request]:
        """The queued calls that get a row now: in order, but those whose dialogue has a row need not wait for one."""
        rows, queue = self._rows, self._queue
        if self.options.waves and self._running:
            return []
        # Dialogues may not come back, or only after the calls that want a row: at most half the rows wait for any.
        asked = {request.conversation for request in queue}
        idle = [conversation for conversation in rows.kept if conversation not in asked]
        lacking = sum(request.conversation not in rows.kept for request in queue) - len(rows.free)
        for conversation in idle[: max(0, min(lacking, len(idle) - self.options.slots // 2))]:
            rows.release(conversation)
        free, kept, wave, left = len(rows.free), set(rows.kept), [], deque[Request]()
        while queue and (free or kept):
            request = queue.popleft()
            if request.conversation in kept:
                kept.remove(request.conversation)
                wave.append(request)
            elif free:
                free -= 1
                wave.append(request)
            else:
                left.append(request)
        queue.extendleft(reversed(left))
        return wave

    def _begin(self, weights: Weights, wave: list[Request]) -> jax.Array:
        """Give every call of the wave a row with its prompt in it, and start it."""
        placed = list(zip(wave, self._rows.place(wave), strict=True))
        self.work.count(placed)
        for request, place in placed:
            self._running[place.slot] = request
            self._replies.start(place.slot)
            self._cancel[place.slot] = False
            if request.sampling.stop and self.decode is not None:
                self._stops[place.slot] = StopFinder(request.sampling.stop, self.decode, self.special)
        return self._programs.place(weights, placed)

    def _fly(self, weights: Weights, first: jax.Array | None) -> None:
        """Have the next chunk decoded. It ends early where calls wait and enough have ended to fill a bucket again."""
        chunks = 1 + len(self._flights)
        lengths, reach = self._replies.length, 1
        for slot, request in self._running.items():
            most = len(request.tokens) + max(0, int(lengths[slot]) - 1) + chunks * self.options.chunk
            reach = max(reach, min(most, len(request.tokens) + request.bound - 1))
        leave = len(self._running) - self.options.admit_buckets[0] if self._queue and not self.options.waves else 0
        report = self._programs.decode(weights, reach, self._cancel, leave)
        self._cancel = np.zeros_like(self._cancel)
        for array in jax.tree.leaves(report):
            array.copy_to_host_async()
        self._flights.append(Flight(report, self._replies.expect(), first, time.perf_counter()))

    def _land(self) -> list[tuple[int, Sampled]]:
        """Read the oldest chunk; the calls that ended in it."""
        flight = self._flights.popleft()
        begun = max(self._clock.read, flight.begun)
        if flight.first is not None:
            flight.first.block_until_ready()
        filled = time.perf_counter() if flight.first is not None else begun
        report = jax.device_get(flight.report)
        self._clock.read = time.perf_counter()
        self.work.prefill_seconds += filled - begun
        self.work.decode_seconds += self._clock.read - filled
        self.work.slot_steps += int(report.steps) * self.options.slots
        self.work.busy_slot_steps += int(np.sum(report.count))
        known = self._replies.length.copy()
        ended = self._replies.grow(report, flight.expected)
        return [self._end(slot) for slot in sorted({*ended, *self._stop(known)})]

    def _stop(self, known: NDArray[np.int32]) -> list[int]:
        """Cut replies whose new tokens, those beyond `known`, complete a stop string; their slots."""
        stopped = []
        for slot, finder in self._stops.items():
            length = finder.feed(self._replies.tokens[slot, known[slot] : self._replies.length[slot]].tolist())
            if length is not None:
                self._replies.cut(slot, length)
                self._cancel[slot] = True
                stopped.append(slot)
        return stopped

    def _end(self, slot: int) -> tuple[int, Sampled]:
        """The reply of the call in this slot, whose row is free again."""
        request, replies = self._running.pop(slot), self._replies
        length = int(replies.length[slot])
        tokens, logprobs = replies.tokens[slot, :length].copy(), replies.logprobs[slot, :length].copy()
        kept = None if replies.kept is None else replies.kept[slot, :length].copy()
        self._rows.end(slot, tokens)
        self.work.generated_tokens += length
        finder = self._stops.pop(slot, None)
        if finder is not None and finder.found is not None:
            outcome = Outcome.STOPPED
        elif int(tokens[-1]) not in self.eos:
            outcome = Outcome.CUT
        else:
            outcome = Outcome.OK if length > 1 else Outcome.EMPTY
        return request.ticket, Sampled(tokens, logprobs, outcome, kept)
