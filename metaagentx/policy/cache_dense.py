"""The plain cache: of each layer one array of keys and one of values, and attention over them in XLA; the reference.

Letters: S slots, C capacity, U rows, P their length, K key-value heads, N query heads, H head_dim.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from metaagentx.mesh import cut, place, reshape
from metaagentx.policy.attention import KeyValue, attention
from metaagentx.policy.config import ModelConfig

Layer = KeyValue  # keys and values, each [S, K, C, H]


def empty(config: ModelConfig, slots: int, capacity: int) -> Layer:
    """Zeros, on a mesh cut over slots and key-value heads."""
    shape = (slots, config.kv_heads, capacity, config.head_dim)
    where = cut(("batch", "kv_heads", None, None), shape)
    return jnp.zeros(shape, config.dtype, out_sharding=where), jnp.zeros(shape, config.dtype, out_sharding=where)


def read(layer: Layer, source: jax.Array, width: int) -> KeyValue:
    """The first `width` positions of the slots `source` [U], each [U, K, width, H]."""

    def rows(kept: jax.Array) -> jax.Array:
        where = cut((None, "kv_heads", None, None), (source.shape[0], kept.shape[1], width, kept.shape[3]))
        return kept.at[source, :, :width].get(out_sharding=where)

    return rows(layer[0]), rows(layer[1])


def put(layer: Layer, slots: jax.Array, rows: KeyValue) -> Layer:
    """The layer with `rows`, each [U, K, P, H], at the beginning of `slots` [U]; those of slot S are dropped."""

    def write(kept: jax.Array, new: jax.Array) -> jax.Array:
        where = cut(("batch", "kv_heads", None, None), kept.shape)
        new = place(new, None, "kv_heads", None, None)  # on a mesh every device sees all rows, and keeps its slots'
        return kept.at[slots, :, : new.shape[2]].set(new, mode="drop", out_sharding=where)

    return write(layer[0], rows[0]), write(layer[1], rows[1])


def write(layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue) -> Layer:
    """The layer with `rows`, each [U, K, P, H], as blocks number `blocks` [U] of `slots` [U]."""
    if len(slots) == 1:  # of a single row XLA makes a slice's update, for which a CPU copies the cache
        slots, blocks = jnp.append(slots, layer[0].shape[0]).astype(slots.dtype), jnp.append(blocks, blocks)
        rows = jnp.concatenate([rows[0]] * 2), jnp.concatenate([rows[1]] * 2)

    def into(kept: jax.Array, new: jax.Array) -> jax.Array:
        new = place(new, None, "kv_heads", None, None)
        shape = (*kept.shape[:2], kept.shape[2] // new.shape[2], *new.shape[2:])
        axes = ("batch", "kv_heads", None, None, None)
        cells = reshape(kept, shape, axes).at[slots, :, blocks].set(new, mode="drop", out_sharding=cut(axes, shape))
        return reshape(cells, kept.shape, axes[:4])

    return into(layer[0], rows[0]), into(layer[1], rows[1])


def attend(
    layer: Layer, positions: jax.Array, width: int, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, Layer]:
    """Attention of one token, q [S, N, 1, H] and k, v [S, K, 1, H], over the cache with that token written in."""
    keys, values = _write(layer[0], k, positions), _write(layer[1], v, positions)
    seen = jnp.arange(width)[None] <= positions[:, None]
    return attention(q, keys[:, :, :width], values[:, :, :width], seen[:, None]), (keys, values)


def _write(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    """cache [S, K, C, H] with new [S, K, 1, H] at each slot's position."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1))(cache, new, positions)
