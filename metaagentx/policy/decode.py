"""Sampling's half of the model: prefill prompts, then one token of every slot at a time, with the block of training.

Letters: S slots, U prompts, P prompt length, C capacity, K key-value heads, G query heads of one, H head_dim.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp

from metaagentx.mesh import cut, in_turn, place
from metaagentx.policy.attention import KeyValue, attention, within
from metaagentx.policy.config import Kernel, ModelConfig
from metaagentx.policy.model import block, embed, rms_norm, rotary, unembed
from metaagentx.policy.params import Params

Cache = list[KeyValue]  # of each layer, keys and values, each [S, K, C, H]


def empty_cache(config: ModelConfig, slots: int, capacity: int) -> Cache:
    """Room for `capacity` tokens in each of `slots` slots."""
    shape = (slots, config.kv_heads, capacity, config.head_dim)
    where = cut(("batch", "kv_heads", None, None), shape)

    def zeros() -> jax.Array:
        return jnp.zeros(shape, config.dtype, out_sharding=where)

    return [(zeros(), zeros()) for _ in range(config.layers)]


def prefill(
    params: Params, config: ModelConfig, tokens: jax.Array, lengths: jax.Array, kernel: Kernel
) -> tuple[jax.Array, Cache]:
    """Logits [U, V] float32 after each prompt, and its keys and values, each [U, K, P, H], of every layer.

    Args:
      tokens: [U, P] int32, prompts padded on the right with anything.
      lengths: [U] int32 tokens of each prompt, at least 1.
      kernel: how attention is computed; see `policy.attention`.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    segments = (positions < lengths[:, None]).astype(jnp.int32)
    attend = within(kernel, positions, segments)
    rotation = rotary(positions, config)

    x, cache = embed(params, tokens), []
    for layer in unstacked(params, config):
        x, kept = block(layer, config, x, rotation, attend)
        cache.append(kept)
    last = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
    return unembed(params, config, rms_norm(last, params["final_norm"], config.norm_eps)), cache


def decode_step(
    params: Params, config: ModelConfig, cache: Cache, tokens: jax.Array, positions: jax.Array
) -> tuple[jax.Array, Cache]:
    """Write each slot's token at its position, and return the logits [S, V] float32 of the next.

    Args:
      cache: of capacity C; what it holds beyond a slot's position is never read.
      tokens: [S] int32.
      positions: [S] int32 in [0, C).
    """
    positions = place(positions, "batch")
    attend_slots = functools.partial(attend_cached, positions)
    rotation = rotary(positions[:, None], config)

    x, updated = embed(params, tokens[:, None]), []
    for layer, kept in zip(unstacked(params, config), cache, strict=True):
        layer, x = in_turn(layer, x)
        x, kept = block(layer, config, x, rotation, functools.partial(attend_slots, kept))
        updated.append(kept)
    return unembed(params, config, rms_norm(x[:, 0], params["final_norm"], config.norm_eps)), updated


def attend_cached(
    positions: jax.Array, cache: KeyValue, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, KeyValue]:
    """Attention of one token, q [S, N, 1, H] and k, v [S, K, 1, H], over the cache with that token written in."""
    keys, values = write(cache[0], k, positions), write(cache[1], v, positions)
    seen = jnp.arange(keys.shape[2])[None] <= positions[:, None]
    return attention(q, keys, values, seen[:, None]), (keys, values)


def write(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    """cache [S, K, C, H] with new [S, K, 1, H] at each slot's position."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1))(cache, new, positions)


def unstacked(params: Params, config: ModelConfig) -> list[Params]:
    """The weights of each layer: unrolled, decoding is faster than scanned."""
    return [jax.tree.map(operator.itemgetter(i), params["layers"]) for i in range(config.layers)]
