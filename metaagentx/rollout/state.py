"""The engine's state, and the pure functions on it: fill rows with prompts, start calls, decode.

Letters: S slots, C capacity (tokens of cache per slot), V vocabulary, K key-value heads, H head_dim; of one
dispatch: U prompts or blocks of P tokens, A calls, T decode steps. Rows of padding name slot S, which no array has:
their writes are dropped. Every shape is static and comes from `EngineOptions`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from metaagentx.mesh import place
from metaagentx.policy.adapters import attach_several
from metaagentx.policy.attention import KeyValue
from metaagentx.policy.cache import Cache, Layer, copy, empty_cache, put
from metaagentx.policy.config import DecodeKernel, Kernel, LoraOptions, ModelConfig
from metaagentx.policy.decode import decode_step
from metaagentx.policy.params import Params
from metaagentx.policy.prefill import extend, prefill
from metaagentx.rollout.draw import Knobs, call_keys, draw


class Weights(struct.PyTreeNode):
    """What calls are sampled with: a base and, with `lora`, N adapters, of which a call has one or none."""

    base: Params
    adapters: Params | None = None  # as `adapters.stack` returns them
    lora: LoraOptions | None = struct.field(pytree_node=False, default=None)

    def of(self, rows: jax.Array) -> Params:
        """The weights for rows [B] int32 of these adapters; -1 is the base alone."""
        if self.adapters is None or self.lora is None:
            return self.base
        return attach_several(self.base, self.adapters, rows, self.lora)


class EngineState(struct.PyTreeNode):
    """What S slots hold. A slot's cache row below its `position` is that of its prompt and reply so far.

    Slots that are not active keep their row: decoding writes at their `position`, and nowhere below.
    """

    cache: Cache  # of each layer, as the decode kernel lays it out
    logits: jax.Array  # [S, V] float32, after the prompt: another call with the same prompt starts from them
    position: jax.Array  # [S] int32, where `token` goes
    token: jax.Array  # [S] int32, the last one drawn, not yet in the cache
    logprob: jax.Array  # [S] float32, of `token` at temperature 1
    kept: jax.Array | None  # [S] float32, of `token`; see `draw`; None where no call is truncated or biased
    active: jax.Array  # [S] bool
    count: jax.Array  # [S] int32, tokens generated
    bound: jax.Array  # [S] int32, tokens to generate at most
    knobs: Knobs  # of the calls
    adapter: jax.Array  # [S] int32, of the call; -1 for none
    keys: jax.Array  # [S] random keys of the calls


class Report(struct.PyTreeNode):
    """What one dispatch of `decode` found, for the host: the state itself goes on to the next dispatch meanwhile."""

    tokens: jax.Array  # [S, 1 + T] int32: the last one drawn before, then the slot's `count` new ones
    logprobs: jax.Array  # [S, 1 + T] float32, of `tokens` at temperature 1
    kept: jax.Array | None  # [S, 1 + T] float32, of `tokens`
    count: jax.Array  # [S] int32
    active: jax.Array  # [S] bool, after it
    steps: jax.Array  # [] int32, decode steps that were made


def empty_state(
    config: ModelConfig, decode_kernel: DecodeKernel, slots: int, capacity: int, reshaped: bool
) -> EngineState:
    """No slot active. `reshaped`: whether calls may draw from anything but the plain distribution."""

    def full(dtype: jnp.dtype, *shape: int) -> jax.Array:
        return jnp.zeros((slots, *shape), dtype)

    return EngineState(
        cache=empty_cache(config, decode_kernel, slots, capacity),
        logits=full(jnp.float32, config.vocab_size),
        position=full(jnp.int32),
        token=full(jnp.int32),
        logprob=full(jnp.float32),
        kept=full(jnp.float32) if reshaped else None,
        active=full(jnp.bool_),
        count=full(jnp.int32),
        bound=full(jnp.int32),
        knobs=Knobs(1 + full(jnp.float32), full(jnp.int32), 1 + full(jnp.float32), full(jnp.int32)),
        adapter=full(jnp.int32),
        keys=call_keys(full(jnp.uint32, 6)),
    )


def fill(
    config: ModelConfig,
    kernel: Kernel,
    decode_kernel: DecodeKernel,
    weights: Weights,
    state: EngineState,
    prompts: jax.Array,
    lengths: jax.Array,
    slots: jax.Array,
    adapter: jax.Array,
) -> EngineState:
    """Compute prompts from their first token on.

    Args:
      kernel: how the prompts' attention is computed; see `policy.attention`.
      decode_kernel: how the cache is laid out; see `policy.cache`.
      prompts: [U, P] int32, padded on the right with anything.
      lengths: [U] int32, at least 1.
      slots: [U] int32, distinct, where the prompts go; S for padding.
      adapter: [U] int32, -1 for none.
    """
    logits, rows = prefill(weights.of(adapter), config, kernel, prompts, lengths)
    return _keep(decode_kernel, state, slots, logits, rows)


def refill(
    config: ModelConfig,
    decode_kernel: DecodeKernel,
    width: int,
    weights: Weights,
    state: EngineState,
    tokens: jax.Array,
    blocks: jax.Array,
    lengths: jax.Array,
    slots: jax.Array,
    ends: jax.Array,
    adapter: jax.Array,
) -> EngineState:
    """Compute blocks of prompts: what of them is in their rows already is not computed again.

    Args:
      width: of the rows that are read; no prompt is longer.
      tokens: [U, P] int32, of a block each, padded on the right with anything.
      blocks: [U] int32, number of the block in its prompt, from 0. Blocks of one prompt come in order.
      lengths: [U] int32 tokens of each, at least 1.
      slots: [U] int32, where the prompts are. Where a mesh cuts the slots into shards, it cuts U alike, and each block
        is in the part of its slot's shard.
      ends: [U] int32, the same for the last block of a prompt, and S for others.
    """
    params = weights.of(adapter)
    logits, cache = extend(params, config, decode_kernel, state.cache, tokens, blocks, lengths, slots, width)
    logits = state.logits.at[ends].set(place(logits, None, None), mode="drop")
    return state.replace(cache=cache, logits=logits)


def fork(
    decode_kernel: DecodeKernel, width: int, state: EngineState, source: jax.Array, slots: jax.Array
) -> EngineState:
    """Copy the first `width` tokens, and the logits after the prompt, from `source` [U] to `slots` [U].

    Where a mesh cuts the slots into shards, each pair is of one shard.
    """
    cache: Cache = []
    for layer in state.cache:
        cache.append(_copy(decode_kernel, width, layer, source, slots, cache[-1:]))
    logits = state.logits[source]
    return state.replace(cache=cache, logits=state.logits.at[slots].set(place(logits, None, None), mode="drop"))


@functools.partial(jax.jit, static_argnums=(0, 1))  # traced and lowered once instead of once a layer: XLA inlines it
def _copy(
    decode_kernel: DecodeKernel, width: int, layer: Layer, source: jax.Array, slots: jax.Array, before: list[Layer]
) -> Layer:
    """One layer of `fork`. Nothing of it is read before the one `before` is written: each needs room for its rows."""
    source, _ = jax.lax.optimization_barrier((source, before))
    return copy(decode_kernel, layer, source, slots, width)


def _keep(
    decode_kernel: DecodeKernel, state: EngineState, slots: jax.Array, logits: jax.Array, rows: list[KeyValue]
) -> EngineState:
    """The state with prompts' logits [U, V], and rows [U, K, P, H] of each layer, in `slots`."""
    cache: Cache = []
    for layer, new in zip(state.cache, rows, strict=True):
        # One layer's rows after the other's: on a mesh those of all layers at once would not fit on a device.
        new, _ = jax.lax.optimization_barrier((new, cache[-1:]))
        cache.append(put(decode_kernel, layer, slots, new))
    return state.replace(cache=cache, logits=state.logits.at[slots].set(place(logits, None, None), mode="drop"))


def start(
    truncated: bool,
    state: EngineState,
    eos: jax.Array,
    slots: jax.Array,
    lengths: jax.Array,
    ids: jax.Array,
    bound: jax.Array,
    knobs: Knobs,
    adapter: jax.Array,
    biases: jax.Array | None,
) -> tuple[EngineState, jax.Array]:
    """Start calls in slots that hold their prompts: draw the first token. Also returns these tokens [A].

    Args:
      truncated, biases: as `draw` takes them.
      eos: [E] int32, ids that end a reply.
      slots: [A] int32, distinct; S for padding.
      lengths: [A] int32, tokens of the prompt.
      ids: [A, 6] uint32, what the call's random key is made of.
      bound: [A] int32, at least 1.
      knobs: of A calls.
      adapter: [A] int32, -1 for none; the one that the prompt was computed with.
    """

    def into(kept: jax.Array, new: jax.Array) -> jax.Array:
        return kept.at[slots].set(new, mode="drop")

    keys = call_keys(ids)
    token, logprob, kept = draw(state.logits[slots], knobs, keys, lengths, biases, truncated)
    state = state.replace(
        position=into(state.position, lengths),
        token=into(state.token, token),
        logprob=into(state.logprob, logprob),
        kept=jax.tree.map(into, state.kept, kept),
        active=into(state.active, ~jnp.isin(token, eos) & (bound > 1)),
        count=into(state.count, jnp.ones_like(lengths)),
        bound=into(state.bound, bound),
        knobs=jax.tree.map(into, state.knobs, knobs),
        adapter=into(state.adapter, adapter),
        keys=into(state.keys, keys),
    )
    return state, token


def decode(
    config: ModelConfig,
    kernel: DecodeKernel,
    steps: int,
    width: int,
    truncated: bool,
    weights: Weights,
    state: EngineState,
    eos: jax.Array,
    biases: jax.Array | None,
    cancel: jax.Array,
    leave: jax.Array,
) -> tuple[EngineState, Report]:
    """Draw up to T more tokens in every active slot.

    Args:
      steps: T.
      width: no active slot's position reaches it within T steps.
      truncated, eos, biases: as in `start`.
      cancel: [S] bool, slots that are active no more.
      leave: [] int32: so few active slots, or none, end the dispatch early.
    """
    params = weights.of(state.adapter)
    state = state.replace(active=state.active & ~cancel)
    column = jnp.arange(1 + steps)[None]

    def first(last: jax.Array) -> jax.Array:
        return jnp.where(column == 0, last[:, None], 0)

    report = Report(
        tokens=first(state.token),
        logprobs=first(state.logprob),
        kept=jax.tree.map(first, state.kept),
        count=jnp.zeros_like(state.count),
        active=state.active,
        steps=jnp.zeros((), jnp.int32),
    )

    def unfinished(carry: tuple[EngineState, Report]) -> jax.Array:
        state, report = carry
        left = jnp.sum(state.active, dtype=jnp.int32)
        return (report.steps < steps) & (left > jnp.maximum(leave, 0))

    def step(carry: tuple[EngineState, Report]) -> tuple[EngineState, Report]:
        state, report = carry
        active = state.active
        logits, cache = decode_step(params, config, kernel, state.cache, state.token, state.position, width)
        position = state.position + active
        drawn = draw(logits, state.knobs, state.keys, position, biases, truncated)
        count = state.count + active

        def last(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(active, new, old)

        def here(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(active[:, None] & (column == report.steps + 1), new[:, None], old)

        token, logprob, kept = jax.tree.map(last, drawn, (state.token, state.logprob, state.kept))
        tokens, logprobs, masses = jax.tree.map(here, drawn, (report.tokens, report.logprobs, report.kept))
        state = state.replace(
            cache=cache,
            position=position,
            token=token,
            logprob=logprob,
            kept=kept,
            active=active & ~jnp.isin(token, eos) & (count < state.bound),
            count=count,
        )
        report = report.replace(
            tokens=tokens,
            logprobs=logprobs,
            kept=masses,
            count=report.count + active,
            active=state.active,
            steps=report.steps + 1,
        )
        return state, report

    return jax.lax.while_loop(unfinished, step, (state, report))
