"""The engine's state, and the pure functions on it: prefill prompts, start calls, decode.

Letters: S slots, C capacity (tokens of cache per slot), V vocabulary, K key-value heads, H head_dim; of one
dispatch: U distinct prompts padded to P tokens, A calls. Rows of padding name slot S, which no array has: their
writes are dropped. Every shape is static and comes from `EngineOptions`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from metaagentx.mesh import cut, place
from metaagentx.policy.adapters import attach_several
from metaagentx.policy.config import Kernel, LoraOptions, ModelConfig
from metaagentx.policy.decode import Cache, decode_step, empty_cache, prefill
from metaagentx.policy.params import Params
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
    """What S slots hold. A slot's cache rows below its `position` are those of its prompt and reply so far.

    `tokens` and `logprobs` keep a finished call's reply until the slot is started again; `logits` are those after
    the slot's prompt, so that another call with the same prompt starts from them.
    """

    cache: Cache  # of each layer, keys and values, each [S, K, C, H]
    logits: jax.Array  # [S, V] float32, after the prompt
    position: jax.Array  # [S] int32, where `token` goes
    token: jax.Array  # [S] int32, the last one drawn, not yet in the cache
    active: jax.Array  # [S] bool
    count: jax.Array  # [S] int32, tokens generated
    bound: jax.Array  # [S] int32, tokens to generate at most
    knobs: Knobs  # of the calls
    adapter: jax.Array  # [S] int32, of the call; -1 for none
    keys: jax.Array  # [S] random keys of the calls
    tokens: jax.Array  # [S, C] int32, generated
    logprobs: jax.Array  # [S, C] float32, of `tokens` at temperature 1
    kept: jax.Array | None  # [S, C] float32, see `draw`; None where no call is truncated or biased
    steps: jax.Array  # [] int32, decode steps of the last dispatch
    busy: jax.Array  # [] int32, active slots summed over those steps


def empty_state(config: ModelConfig, slots: int, capacity: int, reshaped: bool) -> EngineState:
    """No slot active. `reshaped`: whether calls may draw from anything but the plain distribution."""

    def full(dtype: jnp.dtype, *shape: int) -> jax.Array:
        return jnp.zeros((slots, *shape), dtype)

    return EngineState(
        cache=empty_cache(config, slots, capacity),
        logits=full(jnp.float32, config.vocab_size),
        position=full(jnp.int32),
        token=full(jnp.int32),
        active=full(jnp.bool_),
        count=full(jnp.int32),
        bound=full(jnp.int32),
        knobs=jax.tree.map(jnp.asarray, Knobs.of([], [], slots)),
        adapter=full(jnp.int32),
        keys=call_keys(full(jnp.uint32, 6)),
        tokens=full(jnp.int32, capacity),
        logprobs=full(jnp.float32, capacity),
        kept=full(jnp.float32, capacity) if reshaped else None,
        steps=jnp.zeros((), jnp.int32),
        busy=jnp.zeros((), jnp.int32),
    )


def fill(
    config: ModelConfig,
    kernel: Kernel,
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
        cache.append(jax.tree.map(lambda kept, new: write(kept, slots, new), layer, rows))
    return state.replace(cache=cache, logits=state.logits.at[slots].set(place(logits, None, None), mode="drop"))


def write(cache: jax.Array, slots: jax.Array, rows: jax.Array) -> jax.Array:
    """cache [S, K, C, H] of one layer, with rows [U, K, P, H] at the beginning of `slots` [U]."""
    where = cut(("batch", "kv_heads", None, None), cache.shape)
    rows = place(rows, None, "kv_heads", None, None)  # on a mesh every device sees all rows, and keeps its slots'
    return cache.at[slots, :, : rows.shape[2]].set(rows, mode="drop", out_sharding=where)


def start(
    width: int,
    state: EngineState,
    eos: jax.Array,
    source: jax.Array,
    slots: jax.Array,
    lengths: jax.Array,
    ids: jax.Array,
    bound: jax.Array,
    knobs: Knobs,
    adapter: jax.Array,
    biases: jax.Array | None,
    truncated: bool,
) -> EngineState:
    """Start calls: fork the first `width` cache rows of the slot that holds the prompt, and draw the first token.

    Args:
      width: tokens to copy, at least every prompt's length.
      eos: [E] int32, ids that end a reply.
      source: [A] int32, the slot whose cache begins with the call's prompt.
      slots: [A] int32, distinct, where the call goes; may be its source; S for padding.
      lengths: [A] int32, tokens of the prompt.
      ids: [A, 6] uint32, what the call's random key is made of.
      bound: [A] int32, at least 1.
      knobs: of the calls, [A] each.
      adapter: [A] int32, -1 for none; the one that the source's prompt was prefilled with.
      biases, truncated: see `draw`.
    """

    def fork(kept: jax.Array) -> jax.Array:
        where = cut((None, "kv_heads", None, None), (source.shape[0], kept.shape[1], width, kept.shape[3]))
        return write(kept, slots, kept.at[source, :, :width].get(out_sharding=where))

    def put(kept: jax.Array, new: jax.Array) -> jax.Array:
        return kept.at[slots].set(new, mode="drop")

    keys, logits = call_keys(ids), state.logits[source]
    token, logprob, kept = draw(logits, knobs, keys, lengths, biases, truncated)
    active = ~jnp.isin(token, eos) & (bound > 1)
    return state.replace(
        cache=jax.tree.map(fork, state.cache),
        logits=put(state.logits, logits),
        position=put(state.position, lengths),
        token=put(state.token, token),
        active=put(state.active, active),
        count=put(state.count, jnp.ones_like(lengths)),
        bound=put(state.bound, bound),
        knobs=jax.tree.map(put, state.knobs, knobs),
        adapter=put(state.adapter, adapter),
        keys=put(state.keys, keys),
        tokens=state.tokens.at[slots, 0].set(token, mode="drop"),
        logprobs=state.logprobs.at[slots, 0].set(logprob, mode="drop"),
        kept=None if state.kept is None else state.kept.at[slots, 0].set(kept, mode="drop"),
    )


def decode(
    config: ModelConfig,
    steps: int,
    truncated: bool,
    weights: Weights,
    state: EngineState,
    eos: jax.Array,
    biases: jax.Array | None,
) -> EngineState:
    """Draw up to `steps` more tokens in every active slot; stops early when none is. The rest is as in `start`."""
    params = weights.of(state.adapter)

    def unfinished(state: EngineState) -> jax.Array:
        return (state.steps < steps) & jnp.any(state.active)

    def step(state: EngineState) -> EngineState:
        active = state.active
        logits, cache = decode_step(params, config, state.cache, state.token, state.position)
        position = state.position + active
        token, logprob, kept = draw(logits, state.knobs, state.keys, position, biases, truncated)

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
            kept=None if state.kept is None else state.kept.at[rows, column].set(kept, mode="drop"),
            steps=state.steps + 1,
            busy=state.busy + jnp.sum(active, dtype=jnp.int32),
        )

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(unfinished, step, state.replace(steps=zero, busy=zero))
