"""Attention of queries over keys and values, in the ways that different devices and lengths want.

Letters: B rows, T tokens of a row, S keys, N query heads, K key-value heads, H head_dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from metaagentx.mesh import reshape
from metaagentx.policy.config import Kernel

KeyValue = tuple[jax.Array, jax.Array]  # keys and values, each [B, K, T, H]
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, KeyValue]]


def within(kernel: Kernel, positions: jax.Array, segments: jax.Array) -> Attend:
    """How the rows of a packed batch attend within themselves; `positions` and `segments` as in `model.forward`."""
    if kernel != "dense":
        raise NotImplementedError(kernel)
    return functools.partial(attend_within, visible(positions, segments))


def visible(positions: jax.Array, segments: jax.Array) -> jax.Array:
    """[B, T, T] bool: which token (second axis) sees which (last axis)."""
    # Padding is a segment like any other: it sees itself, so that no softmax is over nothing.
    same = segments[:, :, None] == segments[:, None, :]
    return same & (positions[:, :, None] >= positions[:, None, :])


def attend_within(mask: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, KeyValue]:
    """Attention of a row over itself, for `block`."""
    return attention(q, k, v, mask), (k, v)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Grouped-query attention (arXiv 2305.13245): q [B, N, T, H] over k, v [B, K, S, H] where mask [B, T, S] allows."""
    rows, heads, length, width = q.shape
    kv_heads, axes = k.shape[1], ("batch", "kv_heads", None, None)
    # The queries that share a key are stacked, so that both products are plain batched matrix products.
    q = reshape(q * width**-0.5, (rows, kv_heads, heads // kv_heads * length, width), axes)
    scores = jnp.einsum("bkqh,bksh->bkqs", q, k, preferred_element_type=jnp.float32)
    scores = reshape(scores, (rows, kv_heads, heads // kv_heads, length, k.shape[2]), (*axes, None))
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    # Softmax, divided after the second product, where there is less to divide.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    total = reshape(jnp.sum(weights, axis=-1), (*q.shape[:3], 1), axes)
    weights = reshape(weights.astype(v.dtype), (*q.shape[:3], k.shape[2]), axes)
    y = (jnp.einsum("bkqs,bksh->bkqh", weights, v) / total).astype(v.dtype)
    return reshape(y, (rows, heads, length, width), ("batch", "heads", None, None))
