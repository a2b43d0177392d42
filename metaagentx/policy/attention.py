"""Attention of queries over keys and values, in the ways that different devices and lengths want.

Letters: B rows, T tokens of a row, S keys, N query heads, K key-value heads, G query heads of one, H head_dim.

"dense" holds the scores of a whole row, [T, T], and is the reference. "blocked" holds one square of them at a time and
runs anywhere; "strips" holds those of a few queries, for CPUs; "splash" is Pallas' kernel for TPUs; "cudnn" is NVIDIA's
for 16-bit numbers on GPUs and "triton" Pallas' for GPUs. All but the first need no positions: a segment's tokens lie
side by side in their row, in order, so that within a segment "at an earlier position" is "at a smaller index".
`kernels` says which to take where, `attend` takes it.

Rows of trees (`Stems`) are for "dense", "blocked" and "strips", which both skip the squares in which nothing is seen.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import NDArray

from metaagentx.mesh import reshape

KeyValue = tuple[jax.Array, jax.Array]  # keys and values, each [B, K, T, H]
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, KeyValue]]

BLOCK = 512  # queries, and keys, of one square of scores in "blocked"
NAME = "attention"  # of what "splash" and "strips" keep, for policies of recomputation: others' work is done again
LANES = 128  # of a TPU's vector registers: "splash" pads rows to a multiple


STEMS = ("dense", "blocked", "strips")  # kernels that attend along stems


@struct.dataclass
class Stems:
    """Rows that begin with a trunk of segments, which other segments of the row continue: what several samples of one
    prompt have in common is there once. After the trunk come branches of equal length, which do not see each other."""

    of: jax.Array  # [B, T] int32, the segment that a token's own segment continues, and sees all of; 0: none
    trunk: int = struct.field(pytree_node=False)  # tokens of a row's trunk
    branch: int = struct.field(pytree_node=False)  # tokens of one branch; T is the trunk's and a multiple of it


def visible(positions: jax.Array, segments: jax.Array, stems: Stems | None = None) -> jax.Array:
    """[B, T, T] bool: which token (second axis) sees which (last axis)."""
    # Padding is a segment like any other: it sees itself, so that no softmax is over nothing.
    same = segments[:, :, None] == segments[:, None, :]
    seen = same & (positions[:, :, None] >= positions[:, None, :])
    return seen if stems is None else seen | continues(stems.of, segments)


def continues(stem: jax.Array, segments: jax.Array) -> jax.Array:
    """[B, T, S] bool: whether a query, whose segment continues `stem` [B, T], sees a key of `segments` [B, S]."""
    return (stem[:, :, None] == segments[:, None, :]) & (stem[:, :, None] > 0)


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


def squares(blocks: int, size: int, stems: Stems | None) -> NDArray[np.bool_]:
    """[blocks, blocks]: whether a block of queries (first axis) may see one of keys."""
    first = np.arange(blocks) * size
    causal = first[:, None] >= first[None]
    if stems is None:
        return causal
    # Branches are numbered from 0, the trunk is -1: a later block shares a part with an earlier one, or sees the trunk.
    part, last = ((first + ahead - stems.trunk) // stems.branch for ahead in (0, size - 1))
    return causal & ((last[None] >= part[:, None]) | (first[None] < stems.trunk))
