"""What decoding remembers of each slot's tokens, behind one interface: every kernel lays it out as it likes.

Letters: S slots, C capacity (tokens of a slot), U rows, P their length, K key-value heads, N query heads, H head_dim.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from metaagentx.policy import cache_cudnn, cache_dense, cache_paged
from metaagentx.policy.attention import KeyValue
from metaagentx.policy.config import DecodeKernel, ModelConfig

Layer = Any  # a pytree of arrays, of the kernel's own layout
Cache = list[Layer]


class Layout(Protocol):
    """What a kernel's module has; see the functions below."""

    def empty(self, config: ModelConfig, slots: int, capacity: int) -> Layer: ...

    def read(self, layer: Layer, source: jax.Array, width: int) -> KeyValue: ...

    def put(self, layer: Layer, slots: jax.Array, rows: KeyValue) -> Layer: ...

    def write(self, layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue) -> Layer: ...

    def attend(
        self, layer: Layer, positions: jax.Array, width: int, q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, Layer]: ...


LAYOUTS: dict[DecodeKernel, Layout] = {"dense": cache_dense, "paged": cache_paged, "cudnn": cache_cudnn}


def empty_cache(config: ModelConfig, kernel: DecodeKernel, slots: int, capacity: int) -> Cache:
    """Room for `capacity` tokens in each of `slots` slots, of every layer."""
    return [LAYOUTS[kernel].empty(config, slots, capacity) for _ in range(config.layers)]


def read(kernel: DecodeKernel, layer: Layer, source: jax.Array, width: int) -> KeyValue:
    """Keys and values, each [U, K, width, H], of the first `width` positions of the slots `source` [U] int32."""
    return LAYOUTS[kernel].read(layer, source, width)


def put(kernel: DecodeKernel, layer: Layer, slots: jax.Array, rows: KeyValue) -> Layer:
    """The layer with keys and values `rows`, each [U, K, P, H], at positions 0..P of `slots` [U] int32, distinct.

    Rows of slot S, which is not there, are dropped.
    """
    return LAYOUTS[kernel].put(layer, slots, rows)


def copy(kernel: DecodeKernel, layer: Layer, source: jax.Array, slots: jax.Array, width: int) -> Layer:
    """The layer with the first `width` positions of the slots `source` [U] also in `slots` [U], both int32.

    `slots` are distinct; rows of slot S, which is not there, are dropped. Where a mesh cuts the slots into shards, each
    pair is of one shard: every device copies rows of its own, and none reach another.
    """
    axes = _slots(layer)
    if axes is None:
        return put(kernel, layer, slots, read(kernel, layer, source, width))

    def local(layer: Layer, source: jax.Array, slots: jax.Array) -> Layer:
        source, slots = _numbers(axes, layer, source), _numbers(axes, layer, slots)
        size = jax.tree.leaves(layer)[0].shape[0]
        mine = jnp.argsort(slots)[:size]  # those of others come last, and at most all slots are copied to
        rows = LAYOUTS[kernel].read(layer, jnp.minimum(source[mine], size - 1), width)
        return LAYOUTS[kernel].put(layer, slots[mine], rows)

    specs = _specs(layer)
    return jax.shard_map(local, in_specs=(specs, PartitionSpec(), PartitionSpec()), out_specs=specs, check_vma=False)(
        layer, source, slots
    )


def extend(
    kernel: DecodeKernel, layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue, width: int
) -> tuple[Layer, KeyValue]:
    """The layer with keys and values `rows`, each [U, K, P, H], as blocks number `blocks` [U] int32 of `slots` [U].

    P divides C. The pairs of slot and block are distinct; rows of slot S, which is not there, are dropped. Where a mesh
    cuts the slots into shards, it cuts U alike, and what belongs to a slot is in the part of its shard.

    Returns:
      (the layer, what it then has in the first `width` positions of `slots`: keys and values, each [U, K, width, H])
    """
    axes = _slots(layer)
    if axes is None:
        return _extend_local(kernel, width, layer, slots, blocks, rows)

    def local(layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue) -> tuple[Layer, KeyValue]:
        return _extend_local(kernel, width, layer, _numbers(axes, layer, slots), blocks, rows)

    specs, heads = _specs(layer), jax.typeof(rows[0]).sharding.spec[1]
    of, table = PartitionSpec(axes), PartitionSpec(axes, heads, None, None)
    operands = layer, *jax.sharding.reshard((slots, blocks, rows), (of, of, (table, table)))
    return jax.shard_map(
        local, in_specs=(specs, of, of, (table, table)), out_specs=(specs, (table, table)), check_vma=False
    )(*operands)


def _extend_local(
    kernel: DecodeKernel, width: int, layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue
) -> tuple[Layer, KeyValue]:
    """`extend` where all slots are."""
    layer = LAYOUTS[kernel].write(layer, slots, blocks, rows)
    return layer, read(kernel, layer, jnp.minimum(slots, jax.tree.leaves(layer)[0].shape[0] - 1), width)


def _specs(layer: Layer) -> Any:
    """How the layer is cut."""
    return jax.tree.map(lambda kept: jax.typeof(kept).sharding.spec, layer)


def _slots(layer: Layer) -> tuple[str, ...] | None:
    """The mesh axes that cut the slots, if any do."""
    spec = jax.typeof(jax.tree.leaves(layer)[0]).sharding.spec
    entry = spec[0] if spec else None
    return (entry,) if isinstance(entry, str) else entry


def _numbers(axes: tuple[str, ...], layer: Layer, slots: jax.Array) -> jax.Array:
    """Within `jax.shard_map`: `slots` as this device numbers its S' own; S' for those of others."""
    size = jax.tree.leaves(layer)[0].shape[0]
    numbers = slots - size * jax.lax.axis_index(axes)
    return jnp.where((numbers >= 0) & (numbers < size), numbers, size)


def attend(
    kernel: DecodeKernel, layer: Layer, positions: jax.Array, width: int, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, Layer]:
    """One token of every slot: write it at its position, and attend to the positions up to it.

    Args:
      positions: [S] int32 in [0, C).
      width: beyond it nothing is read. No position of a slot that matters reaches it; what other slots gather is
        anything, but their tokens too are written where they belong.
      q: [S, N, 1, H], rotated.
      k, v: [S, K, 1, H], k rotated.

    Returns:
      (what the token gathers [S, N, 1, H], the layer with the token in it)
    """
    return LAYOUTS[kernel].attend(layer, positions, width, q, k, v)
