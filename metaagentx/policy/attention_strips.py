"""Attention on CPUs: a strip of queries at a time over the keys that it may see. Letters as in `attention`.

The backward pass (arXiv 2205.14135) is written out, not derived: with keys as the rows of every square of scores, its
five products are of matrices as they lie in memory, and nothing larger than keys or queries is transposed.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from numpy.typing import NDArray

from metaagentx.mesh import place, reshape
from metaagentx.policy.attention import NAME, Stems, continues, squares

STRIP = 128  # queries of a strip

Strip: TypeAlias = tuple[int, int, tuple[tuple[int, int], ...]]  # first query, one after the last, runs of keys as such
Owners: TypeAlias = tuple[jax.Array, jax.Array | None]  # segments and those they continue, [B, T] int32

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def strips(
    segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, size: int = STRIP, stems: Stems | None = None
) -> jax.Array:
    """Causal attention of `size` queries at a time over the blocks of keys that they may see.

    Arguments as of `blocked`. The program is as long as a row is.
    """
    length = q.shape[2]
    plan = tuple(
        (i * size, min(length, (i + 1) * size), _runs(seen, size, length))
        for i, seen in enumerate(squares(-(-length // size), size, stems))
    )
    of = None if stems is None else place(stems.of, "batch", None)
    return _strips(plan, (place(segments, "batch", None), of), q * q.shape[3] ** -0.5, k, v)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _strips(plan: tuple[Strip, ...], owners: Owners, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _forward(plan, owners, q, k, v)[0]


def _forward(
    plan: tuple[Strip, ...], owners: Owners, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, tuple]:
    def attend(strip: Strip) -> tuple[jax.Array, jax.Array]:
        """What queries get [B, N, t, H], and the logarithms of their sums of exponentials [B, K, G t]."""
        own, keys, values = _queries(q, strip, k.shape[1]), _keys(k, strip), _keys(v, strip)
        scores = _einsum("bkqh,bksh->bkqs", own, keys)
        grouped = _reshape(scores, (*k.shape[:2], -1, strip[1] - strip[0], keys.shape[2]))
        grouped = jnp.where(_visible(owners, strip)[:, None, None], grouped, jnp.finfo(jnp.float32).min)
        scores = _reshape(grouped, scores.shape)
        top = jnp.max(scores, axis=-1)
        weights = jnp.exp(scores - top[..., None])
        total = jnp.sum(weights, axis=-1)
        y = _einsum("bkqs,bksh->bkqh", weights.astype(v.dtype), values) / total[..., None]
        return _reshape(y.astype(v.dtype), (*q.shape[:2], -1, q.shape[3])), top + jnp.log(total)

    parts, sums = zip(*(attend(strip) for strip in plan), strict=True)
    y = checkpoint_name(jnp.concatenate(parts, axis=2), NAME)
    return y, (owners, q, k, v, y, [checkpoint_name(x, NAME) for x in sums])


def _backward(plan: tuple[Strip, ...], kept: tuple, dy: jax.Array) -> tuple:
    owners, q, k, v, y, sums = kept

    def gradients(strip: Strip, total: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        own, got, dgot = (_queries(x, strip, k.shape[1]) for x in (q, y, dy))
        keys, values = _keys(k, strip), _keys(v, strip)
        scores = _einsum("bksh,bkqh->bksq", keys, own)
        weights = jnp.exp(scores - total[:, :, None])
        grouped = _reshape(weights, (*keys.shape[:3], -1, strip[1] - strip[0]))
        seen = _visible(owners, strip).swapaxes(1, 2)[:, None, :, None]
        weights = _reshape(jnp.where(seen, grouped, 0.0), scores.shape)
        mean = jnp.sum(got.astype(jnp.float32) * dgot.astype(jnp.float32), axis=-1)
        dscores = weights * (_einsum("bksh,bkqh->bksq", values, dgot) - mean[:, :, None])
        dscores, weights = dscores.astype(q.dtype), weights.astype(v.dtype)
        dq = _einsum("bksh,bksq->bkhq", keys, dscores).swapaxes(2, 3).astype(q.dtype)
        dk, dv = _einsum("bksq,bkqh->bksh", dscores, own), _einsum("bksq,bkqh->bksh", weights, dgot)
        return _reshape(dq, (*q.shape[:2], -1, q.shape[3])), _spread(dk, strip, k), _spread(dv, strip, v)

    dq, dk, dv = zip(*(gradients(*part) for part in zip(plan, sums, strict=True)), strict=True)
    return None, jnp.concatenate(dq, axis=2), sum(dk).astype(k.dtype), sum(dv).astype(v.dtype)


_strips.defvjp(_forward, _backward)


def _runs(seen: NDArray[np.bool_], size: int, length: int) -> tuple[tuple[int, int], ...]:
    """Which of the blocks are seen, as runs of tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]))) * size
    return tuple((int(first), min(length, int(last))) for first, last in edges.reshape(-1, 2))


def _queries(x: jax.Array, strip: Strip, kv_heads: int) -> jax.Array:
    """The strip's of [B, N, T, H], those that share a key stacked: [B, K, G t, H]."""
    x = x[:, :, strip[0] : strip[1]]
    return _reshape(x, (x.shape[0], kv_heads, -1, x.shape[3]))


def _keys(x: jax.Array, strip: Strip, axis: int = 2) -> jax.Array:
    """The keys, along `axis`, that the strip may see."""
    parts = [jax.lax.slice_in_dim(x, *run, axis=axis) for run in strip[2]]
    return jnp.concatenate(parts, axis=axis)


def _spread(x: jax.Array, strip: Strip, like: jax.Array) -> jax.Array:
    """The transpose of `_keys`: of [B, K, S, H] all keys, zeros where the strip sees none."""
    ends = np.cumsum([last - first for first, last in strip[2]])
    parts = [
        jnp.pad(x[:, :, end - (last - first) : end], ((0, 0), (0, 0), (first, like.shape[2] - last), (0, 0)))
        for end, (first, last) in zip(ends, strip[2], strict=True)
    ]
    return sum(parts[1:], parts[0])


def _visible(owners: Owners, strip: Strip) -> jax.Array:
    """[B, t, S] bool: which query sees which key."""
    first, last, runs = strip
    segments, of = owners
    keys = _keys(segments, strip, axis=1)
    index = np.concatenate([np.arange(*run) for run in runs])
    seen = (segments[:, first:last, None] == keys[:, None]) & (np.arange(first, last)[:, None] >= index)[None]
    return seen if of is None else seen | continues(of[:, first:last], keys)


def _reshape(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`x` [B, heads, ...] in another shape that begins so, one -1 of which is what is left."""
    rest = x.size // -int(np.prod(shape)) if -1 in shape else 0
    shape = tuple(rest if size == -1 else size for size in shape)
    return reshape(x, shape, ("batch", "kv_heads", *(None,) * (len(shape) - 2)))
