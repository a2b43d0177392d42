"""What decoding remembers of each slot's tokens, behind one interface: every kernel lays it out as it likes.

Letters: S slots, C capacity (tokens of a slot), U rows, P their length, K key-value heads, N query heads, H head_dim.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax

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


def write(kernel: DecodeKernel, layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue) -> Layer:
    """The layer with keys and values `rows`, each [U, K, P, H], as blocks number `blocks` [U] int32 of `slots` [U].

    P divides C. The pairs of slot and block are distinct; rows of slot S, which is not there, are dropped.
    """
    return LAYOUTS[kernel].write(layer, slots, blocks, rows)


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
