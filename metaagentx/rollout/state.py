"""The engine's state, and the pure functions on it: prefill prompts, start calls, decode.

Letters: S slots, C capacity (tokens of cache per slot), V vocabulary, K key-value heads, H head_dim; of one
dispatch: U distinct prompts padded to P tokens, A calls. Rows of padding name slot S, which no array has: their
writes are dropped. Every shape is static and comes from `EngineOptions`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from metaagentx.mesh import place
from metaagentx.policy.adapters import attach_several
from metaagentx.policy.cache import Cache, empty_cache, put, read
from metaagentx.policy.config import DecodeKernel, Kernel, LoraOptions, ModelConfig
from metaagentx.policy.decode import decode_step, prefill
from metaagentx.policy.params import Params
from metaagentx.rollout.draw import call_keys, draw


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
    """What S slots hold. A slot's cache rows below its `position` are those of its prompt and reply so far.

    `tokens` and `logprobs` keep a finished call's reply until the slot is started again; `logits` are those after
    the slot's prompt, so that another call with the same prompt starts from them.
    """

    cache: Cache  # of each layer, as the decode kernel lays it out
    logits: jax.Array  # [S, V] float32, after the prompt
    position: jax.Array  # [S] int32, where `token` goes
    token: jax.Array  # [S] int32, the last one drawn, not yet in the cache
    active: jax.Array  # [S] bool
    count: jax.Array  # [S] int32, tokens generated
    bound: jax.Array  # [S] int32, tokens to generate at most
    temperature: jax.Array  # [S] float32, 0 is greedy
    adapter: jax.Array  # [S] int32, of the call; -1 for none
    keys: jax.Array  # [S] random keys of the calls
    tokens: jax.Array  # [S, C] int32, generated
    logprobs: jax.Array  # [S, C] float32, of `tokens` at temperature 1
    steps: jax.Array  # [] int32, decode steps of the last dispatch
    busy: jax.Array  # [] int32, active slots summed over those steps


def empty_state(config: ModelConfig, decode_kernel: DecodeKernel, slots: int, capacity: int) -> EngineState:
    """No slot active."""

    def full(dtype: jnp.dtype, *shape: int) -> jax.Array:
        return jnp.zeros((slots, *shape), dtype)

    return EngineState(
        cache=empty_cache(config, decode_kernel, slots, capacity),
        logits=full(jnp.float32, config.vocab_size),
        position=full(jnp.int32),
        token=full(jnp.int32),
        active=full(jnp.bool_),
        count=full(jnp.int32),
        bound=full(jnp.int32),
        temperature=full(jnp.float32),
        adapter=full(jnp.int32),
        keys=call_keys(full(jnp.uint32, 6)),
        tokens=full(jnp.int32, capacity),
        logprobs=full(jnp.float32, capacity),
        steps=jnp.zeros((), jnp.int32),
        busy=jnp.zeros((), jnp.int32),
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
    """Prefill each prompt once, into the slot of the first call that has it.

    Args:
      kernel: how the prompts' attention is computed; see `policy.attention`.
      decode_kernel: how the cache is laid out; see `policy.cache`.
      prompts: [U, P] int32, padded on the right with anything.
      lengths: [U] int32, at least 1.
      slots: [U] int32, distinct; S for padding.
      adapter: [U] int32, -1 for none.
    """
    logits, fresh = prefill(weights.of(adapter), config, prompts, lengths, kernel)
    cache: Cache = []
    for layer, rows in zip(state.cache, fresh, strict=True):
        # One layer's rows after the other's: on a mesh those of all layers at once would not fit on a device.
        rows, _ = jax.lax.optimization_barrier((rows, cache[-1:]))
        cache.append(put(decode_kernel, layer, slots, rows))
    return state.replace(cache=cache, logits=state.logits.at[slots].set(place(logits, None, None), mode="drop"))


def start(
    decode_kernel: DecodeKernel,
    width: int,
    state: EngineState,
    eos: jax.Array,
    source: jax.Array,
    slots: jax.Array,
    lengths: jax.Array,
    ids: jax.Array,
    bound: jax.Array,
    temperature: jax.Array,
    adapter: jax.Array,
) -> EngineState:
    """Start calls: fork the first `width` cache rows of the slot that holds the prompt, and draw the first token.

    Args:
      decode_kernel: how the cache is laid out.
      width: tokens to copy, at least every prompt's length.
      eos: [E] int32, ids that end a reply.
      source: [A] int32, the slot whose cache begins with the call's prompt.
      slots: [A] int32, distinct, where the call goes; may be its source; S for padding.
      lengths: [A] int32, tokens of the prompt.
      ids: [A, 6] uint32, what the call's random key is made of.
      bound: [A] int32, at least 1.
      temperature: [A] float32.
      adapter: [A] int32, -1 for none; the one that the source's prompt was prefilled with.
    """

    def into(kept: jax.Array, new: jax.Array) -> jax.Array:
        return kept.at[slots].set(new, mode="drop")

    keys, logits = call_keys(ids), state.logits[source]
    token, logprob = draw(logits, temperature, keys, lengths)
    active = ~jnp.isin(token, eos) & (bound > 1)
    return state.replace(
        cache=[put(decode_kernel, kept, slots, read(decode_kernel, kept, source, width)) for kept in state.cache],
        logits=into(state.logits, logits),
        position=into(state.position, lengths),
        token=into(state.token, token),
        active=into(state.active, active),
        count=into(state.count, jnp.ones_like(lengths)),
        bound=into(state.bound, bound),
        temperature=into(state.temperature, temperature),
        adapter=into(state.adapter, adapter),
        keys=into(state.keys, keys),
        tokens=state.tokens.at[slots, 0].set(token, mode="drop"),
        logprobs=state.logprobs.at[slots, 0].set(logprob, mode="drop"),
    )


def decode(
    config: ModelConfig, kernel: DecodeKernel, steps: int, weights: Weights, state: EngineState, eos: jax.Array
) -> EngineState:
    """Draw up to `steps` more tokens in every active slot; stops early when no slot is active. `eos` as in `start`."""
    params = weights.of(state.adapter)

    def unfinished(state: EngineState) -> jax.Array:
        return (state.steps < steps) & jnp.any(state.active)

    def step(state: EngineState) -> EngineState:
        active = state.active
        logits, cache = decode_step(
            params, config, kernel, state.cache, state.token, state.position, state.tokens.shape[1]
        )
        position = state.position + active
        token, logprob = draw(logits, state.temperature, state.keys, position)

        rows = jnp.arange(active.shape[0])
        column = jnp.where(active, state.count, state.tokens.shape[1])  # beyond the end: dropped
        count = state.count + active
        ended = jnp.isin(token, eos) | (count >= state.bound)
        return state.replace(
            cache=cache,
            position=position,
            token=jnp.where(active, token, state.token),
            active=active & ~ended,
            count=count,
            tokens=state.tokens.at[rows, column].set(token, mode="drop"),
            logprobs=state.logprobs.at[rows, column].set(logprob, mode="drop"),
            steps=state.steps + 1,
            busy=state.busy + jnp.sum(active, dtype=jnp.int32),
        )

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(unfinished, step, state.replace(steps=zero, busy=zero))
