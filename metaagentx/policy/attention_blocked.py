"""Attention in squares of scores, on any device. Letters as in `attention`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from metaagentx.mesh import place, reshape
from metaagentx.policy.attention import BLOCK, Stems, continues, squares


def blocked(
    segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, size: int = BLOCK, stems: Stems | None = None
) -> jax.Array:
    """Causal attention in squares of `size` queries and keys, with a running softmax (arXiv 2112.05682).

    Squares above the diagonal, or between two branches, are skipped; the backward pass recomputes each square's scores.

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
    begun = owners if stems is None else cut_up(place(stems.of, "batch", None)[:, :, None])[..., 0]
    numbers, index = jnp.arange(blocks), jnp.arange(size)
    keys = numbers, cut_up(k), cut_up(v), owners
    needed = jnp.asarray(squares(blocks, size, stems))

    @jax.checkpoint
    def over_keys(_: Any, queries: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        i, q_i, owner_i, stem_i = queries

        @jax.checkpoint
        def square(seen: Any, part: Any) -> tuple[jax.Array, ...]:
            """The running (maximum, sum of exponentials, weighted sum of values), with keys j taken in."""
            (top, total, y), (j, k_j, v_j, owner_j) = seen, part
            narrow_q, narrow_k, narrow_v = q_i.astype(q.dtype), k_j.astype(k.dtype), v_j.astype(v.dtype)
            scores = jnp.einsum("bkgqh,bksh->bkgqs", narrow_q, narrow_k, preferred_element_type=jnp.float32)
            mask = (owner_i[:, :, None] == owner_j[:, None, :]) & (
                (i * size + index)[None, :, None] >= (j * size + index)[None, None]
            )
            if stems is not None:
                mask |= continues(stem_i, owner_j)
            scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
            new_top = jax.lax.stop_gradient(jnp.maximum(top, jnp.max(scores, axis=-1)))
            weights, kept = jnp.exp(scores - new_top[..., None]), jnp.exp(top - new_top)
            more = jnp.einsum(
                "bkgqs,bksh->bkgqh", weights.astype(v.dtype), narrow_v, preferred_element_type=jnp.float32
            )
            return new_top, total * kept + jnp.sum(weights, axis=-1), y * kept[..., None] + more

        def step(seen: Any, part: Any) -> tuple[Any, None]:
            return jax.lax.cond(needed[i, part[0]], square, lambda seen, _: seen, seen, part), None

        zero = jnp.zeros_like(q_i)
        lowest = jnp.full_like(zero[..., 0], jnp.finfo(jnp.float32).min)  # finite: a difference of two is a number
        (_, total, y), _ = jax.lax.scan(step, (lowest, zero[..., 0], zero), keys)
        return None, (y / total[..., None]).astype(v.dtype)

    _, y = jax.lax.scan(over_keys, None, (numbers, cut_up(grouped), owners, begun))
    y = jnp.moveaxis(y, 0, -3).reshape(rows, kv_heads, group, blocks * size, width)[..., :length, :]
    return reshape(y, (rows, heads, length, width), ("batch", "heads", None, None))
