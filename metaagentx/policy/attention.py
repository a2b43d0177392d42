"""Attention of queries over keys and values, in the ways that different devices and lengths want.

Letters: B rows, T tokens of a row, S keys, N query heads, K key-value heads, G query heads of one, H head_dim.

"dense" holds the scores of a whole row, [T, T], and is the reference. "blocked" holds one square of them at a time and
runs anywhere; "splash" is Pallas' kernel for TPUs. The latter two need no positions: a segment's tokens lie side by
side in their row, in order, so that within a segment "at an earlier position" is "at a smaller index".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metaagentx.mesh import cut, place, reshape
from metaagentx.policy.config import Kernel

KeyValue = tuple[jax.Array, jax.Array]  # keys and values, each [B, K, T, H]
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, KeyValue]]

BLOCK = 512  # queries, and keys, of one square of scores in "blocked"
NAME = "attention"  # of what a kernel returns, for policies of recomputation
LANES = 128  # of a TPU's vector registers: "splash" pads rows to a multiple


def within(kernel: Kernel, positions: jax.Array, segments: jax.Array) -> Attend:
    """How the rows of a packed batch attend within themselves; `positions` and `segments` as in `model.forward`."""
    if kernel == "dense":
        return functools.partial(attend_within, visible(positions, segments))
    attend = blocked if kernel == "blocked" else splash

    def attend_rows(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, KeyValue]:
        return attend(segments, q, k, v), (k, v)

    return attend_rows


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


def blocked(segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, size: int = BLOCK) -> jax.Array:
    """Causal attention in squares of `size` queries and keys, with a running softmax (arXiv 2112.05682).

    Squares above the diagonal are skipped; the backward pass recomputes each square's scores.

    Args:
      segments: [B, T] int32.
      q: [B, N, T, H]; k, v: [B, K, T, H].
    """
    rows, heads, length, width = q.shape
    kv_heads, group = k.shape[1], heads // k.shape[1]
    size = min(size, length)
    blocks = -(-length // size)

    def cut_up(x: jax.Array, fill: int = 0) -> jax.Array:
        """[..., T, H] as [blocks, ..., size, H]."""
        # In float32, so that the backward pass sums the squares' gradients in float32; the products below are not.
        x = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
        x = jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, blocks * size - length), (0, 0)), constant_values=fill)
        return jnp.moveaxis(x.reshape(*x.shape[:-2], blocks, size, x.shape[-1]), -3, 0)

    grouped = reshape(q * width**-0.5, (rows, kv_heads, group, length, width), ("batch", "kv_heads", None, None, None))
    owners = cut_up(place(segments, "batch", None)[:, :, None], fill=-1)[..., 0]  # [blocks, B, size]
    numbers, index = jnp.arange(blocks), jnp.arange(size)
    keys = numbers, cut_up(k), cut_up(v), owners

    @jax.checkpoint
    def over_keys(_: Any, queries: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        i, q_i, owner_i = queries

        @jax.checkpoint
        def square(seen: Any, part: Any) -> tuple[jax.Array, ...]:
            """The running (maximum, sum of exponentials, weighted sum of values), with keys j taken in."""
            (top, total, y), (j, k_j, v_j, owner_j) = seen, part
            narrow_q, narrow_k, narrow_v = q_i.astype(q.dtype), k_j.astype(k.dtype), v_j.astype(v.dtype)
            scores = jnp.einsum("bkgqh,bksh->bkgqs", narrow_q, narrow_k, preferred_element_type=jnp.float32)
            mask = (owner_i[:, :, None] == owner_j[:, None, :]) & (
                (i * size + index)[None, :, None] >= (j * size + index)[None, None]
            )
            scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
            new_top = jax.lax.stop_gradient(jnp.maximum(top, jnp.max(scores, axis=-1)))
            weights, kept = jnp.exp(scores - new_top[..., None]), jnp.exp(top - new_top)
            more = jnp.einsum(
                "bkgqs,bksh->bkgqh", weights.astype(v.dtype), narrow_v, preferred_element_type=jnp.float32
            )
            return new_top, total * kept + jnp.sum(weights, axis=-1), y * kept[..., None] + more

        def step(seen: Any, part: Any) -> tuple[Any, None]:
            return jax.lax.cond(part[0] <= i, square, lambda seen, _: seen, seen, part), None

        zero = jnp.zeros_like(q_i)
        lowest = jnp.full_like(zero[..., 0], jnp.finfo(jnp.float32).min)  # finite: a difference of two is a number
        (_, total, y), _ = jax.lax.scan(step, (lowest, zero[..., 0], zero), keys)
        return None, (y / total[..., None]).astype(v.dtype)

    _, y = jax.lax.scan(over_keys, None, (numbers, cut_up(grouped), owners))
    y = jnp.moveaxis(y, 0, -3).reshape(rows, kv_heads, group, blocks * size, width)[..., :length, :]
    return reshape(y, (rows, heads, length, width), ("batch", "heads", None, None))


def splash(segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, interpret: bool = False) -> jax.Array:
    """Causal attention by Pallas' splash kernel (`jax.experimental.pallas.ops.tpu`), forward and backward on a TPU.

    Arguments as of `blocked`; `interpret` runs the kernel's Python on any device, for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    rows, heads, length, width = q.shape
    kv_heads, group = k.shape[1], heads // k.shape[1]
    size = min(1024, -(-length // LANES) * LANES)
    padded = -(-length // size) * size
    wide = 2 * size if padded % (2 * size) == 0 else size  # keys of a block backward; twice as many overflow the VMEM

    def pad(x: jax.Array, fill: int = 0) -> jax.Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, padded - length), (0, 0)), constant_values=fill)

    def local(owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """One device's rows and key-value heads."""
        mask = splash_attention.MultiHeadMask([splash_attention.CausalMask((padded, padded))] * group)
        sizes = splash_attention.BlockSizes(
            block_q=size,
            block_kv=size,
            block_kv_compute=min(size, 512),
            block_q_dkv=size,
            block_kv_dkv=wide,
            block_kv_dkv_compute=min(size, 512),
            use_fused_bwd_kernel=True,  # five products instead of seven; dq is summed over padded / wide parts
        )
        kernel = splash_attention.make_splash_mqa_single_device(
            mask, block_sizes=sizes, residual_checkpoint_name=NAME, interpret=interpret
        )

        def row(owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            ids = splash_attention.SegmentIds(owner, owner)
            return jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=ids))(q, k, v)

        return jax.vmap(row)(owner, q, k, v)

    axes = ("batch", "kv_heads", None, None)
    grouped = reshape(q * width**-0.5, (rows, kv_heads, group, length, width), (*axes, None))
    owner = pad(place(segments, "batch", None)[:, :, None], fill=-1)[..., 0]
    operands = owner, pad(grouped), pad(k), pad(v)
    if cut(axes, k.shape) is not None:
        specs = tuple(jax.typeof(x).sharding.spec for x in operands)
        local = jax.shard_map(local, in_specs=specs, out_specs=specs[1], check_vma=False)
    y = local(*operands)[..., :length, :]
    return reshape(y, (rows, heads, length, width), ("batch", "heads", None, None))
