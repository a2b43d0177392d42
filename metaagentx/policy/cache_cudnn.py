"""The cache of GPUs: decoding by cuDNN (`jax.nn.dot_product_attention`), which reads what a slot holds.

Letters: S slots, C capacity, U rows, P their length, K key-value heads, N query heads, G = N / K, H head_dim.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from metaagentx.mesh import cut, place, reshape
from metaagentx.policy.attention import KeyValue
from metaagentx.policy.config import ModelConfig

KEPT = ("batch", None, "kv_heads", None)  # what the axes of keys and values mean, each [S, C, K, H]
Layer = KeyValue


def empty(config: ModelConfig, slots: int, capacity: int) -> Layer:
    """Zeros, on a mesh cut over slots and key-value heads."""
    shape = (slots, capacity, config.kv_heads, config.head_dim)
    where = cut(KEPT, shape)
    return jnp.zeros(shape, config.dtype, out_sharding=where), jnp.zeros(shape, config.dtype, out_sharding=where)


def read(layer: Layer, source: jax.Array, width: int) -> KeyValue:
    """The first `width` positions of the slots `source` [U], each [U, K, width, H]."""
    where = cut((None, *KEPT[1:]), (source.shape[0], width, *layer[0].shape[2:]))
    k, v = (kept.at[source, :width].get(out_sharding=where).swapaxes(1, 2) for kept in layer)
    return k, v


def put(layer: Layer, slots: jax.Array, rows: KeyValue) -> Layer:
    """The layer with `rows`, each [U, K, P, H], at the beginning of `slots` [U]; those of slot S are dropped."""

    def write(kept: jax.Array, new: jax.Array) -> jax.Array:
        new = place(new, None, "kv_heads", None, None).swapaxes(1, 2)  # on a mesh every device keeps its slots' rows
        return kept.at[slots, : new.shape[1]].set(new, mode="drop", out_sharding=cut(KEPT, kept.shape))

    return write(layer[0], rows[0]), write(layer[1], rows[1])


def write(layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue) -> Layer:
    """The layer with `rows`, each [U, K, P, H], as blocks number `blocks` [U] of `slots` [U]."""

    def into(kept: jax.Array, new: jax.Array) -> jax.Array:
        new = place(new, None, "kv_heads", None, None).swapaxes(1, 2)
        shape = (kept.shape[0], kept.shape[1] // new.shape[1], *new.shape[1:])
        axes = ("batch", None, *KEPT[1:])
        cells = reshape(kept, shape, axes).at[slots, blocks].set(new, mode="drop", out_sharding=cut(axes, shape))
        return reshape(cells, kept.shape, KEPT)

    return into(layer[0], rows[0]), into(layer[1], rows[1])


def attend(
    layer: Layer, positions: jax.Array, width: int, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, Layer]:
    """Attention of one token, q [S, N, 1, H] and k, v [S, K, 1, H], over the cache with that token written in.

    The cache is not cut to `width`, which would cost a copy: the kernel stops where a slot ends.
    """
    return attend_by("cudnn", layer, positions, width, q, k, v)


def attend_by(
    implementation: Literal["cudnn", "xla"],
    layer: Layer,
    positions: jax.Array,
    width: int,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> tuple[jax.Array, Layer]:
    """`attend` by an implementation of `jax.nn.dot_product_attention`."""
    kv_heads = k.shape[1]
    grouped = reshape(q, (q.shape[0], kv_heads, q.shape[1] // kv_heads, q.shape[3]), ("batch", "kv_heads", None, None))
    operands = *layer, k.swapaxes(1, 2), v.swapaxes(1, 2), positions, grouped
    local = functools.partial(_attend_local, implementation, width)
    if cut(KEPT, layer[0].shape) is not None:
        specs = tuple(jax.typeof(x).sharding.spec for x in operands)
        local = jax.shard_map(local, in_specs=specs, out_specs=(specs[5], specs[0], specs[1]), check_vma=False)
    y, keys, values = local(*operands)
    return reshape(y, q.shape, ("batch", "heads", None, None)), (keys, values)


def _attend_local(
    implementation: Literal["cudnn", "xla"],
    width: int,
    keys: jax.Array,
    values: jax.Array,
    k: jax.Array,
    v: jax.Array,
    positions: jax.Array,
    q: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One device's slots and heads: q [S, K, G, H] -> (y [S, K, G, H], keys and values with k and v [S, 1, K, H])."""
    write = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))
    keys, values = write(keys, k, positions), write(values, v, positions)
    y = jax.nn.dot_product_attention(
        q.reshape(q.shape[0], 1, -1, q.shape[3]),
        keys,
        values,
        query_seq_lengths=jnp.ones_like(positions),
        key_value_seq_lengths=jnp.minimum(positions + 1, width),
        implementation=implementation,
    )
    return y.reshape(q.shape), keys, values
