"""Prefilling prompts: whole, or only what follows a beginning whose keys and values exist already.

Letters: U prompts, P tokens of each that are computed, W positions of each in all, V vocabulary, K key-value heads,
N query heads, H head_dim.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from metaagentx.mesh import place
from metaagentx.policy.attend import within
from metaagentx.policy.attention import Attend, KeyValue, attention
from metaagentx.policy.config import Kernel, ModelConfig
from metaagentx.policy.decode import unstacked
from metaagentx.policy.model import block, embed, rms_norm, rotary, unembed
from metaagentx.policy.params import Params

QUERIES = 512  # whose scores over a context are held at a time


def prefill(
    params: Params, config: ModelConfig, kernel: Kernel, tokens: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, list[KeyValue]]:
    """Logits [U, V] float32 after each prompt, and its keys and values, each [U, K, P, H], of every layer.

    Args:
      kernel: how attention is computed; see `policy.attention`.
      tokens: [U, P] int32, prompts padded on the right with anything.
      lengths: [U] int32 tokens of each prompt, at least 1.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    attend = within(kernel, positions, (positions < lengths[:, None]).astype(jnp.int32), alone=True)
    return _through(params, config, tokens, positions, lengths, [attend] * config.layers)


def extend(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    begin: jax.Array,
    lengths: jax.Array,
    context: list[KeyValue],
) -> tuple[jax.Array, list[KeyValue]]:
    """`prefill` of prompts whose first `begin` tokens are in `context`: only the others are computed.

    Args:
      tokens: [U, P] int32, each prompt from `begin` on, padded on the right with anything.
      begin: [U] int32, at least 0.
      lengths: [U] int32 tokens of each in `tokens`, at least 1; `begin + lengths` is at most W.
      context: of each layer keys and values, each [U, K, W, H]; beyond `begin` they hold anything finite.

    Returns:
      (logits [U, V] float32 after each prompt, of each layer the keys and values of all its tokens, each [U, K, W, H])
    """
    begin = place(begin, "batch")
    positions = begin[:, None] + jnp.arange(tokens.shape[1])[None]
    attends = [functools.partial(_attend_after, begin, positions, rows) for rows in context]
    return _through(params, config, tokens, positions, lengths, attends)


def _through(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    lengths: jax.Array,
    attends: Sequence[Attend],
) -> tuple[jax.Array, list[KeyValue]]:
    """The layers, each with its way to attend; logits after the last of `lengths` tokens, and what each layer keeps."""
    rotation = rotary(positions, config)
    x, rows = embed(params, tokens), []
    for layer, attend in zip(unstacked(params, config), attends, strict=True):
        x, kept = block(layer, config, x, rotation, attend)
        rows.append(kept)
    last = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
    return unembed(params, config, rms_norm(last, params["final_norm"], config.norm_eps)), rows


def _attend_after(
    begin: jax.Array, positions: jax.Array, context: KeyValue, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, KeyValue]:
    """Attention of q [U, N, P, H] and k, v [U, K, P, H] at `positions` [U, P] over the context with k and v in it."""
    keys, values = (_insert(rows, new, begin) for rows, new in zip(context, (k, v), strict=True))

    def attend(q: jax.Array, positions: jax.Array) -> jax.Array:
        return attention(q, keys, values, jnp.arange(keys.shape[2])[None, None] <= positions[:, :, None])

    parts = range(0, q.shape[2], QUERIES)
    y = [attend(q[:, :, i : i + QUERIES], positions[:, i : i + QUERIES]) for i in parts]
    return jnp.concatenate(y, axis=2), (keys, values)


def _insert(rows: jax.Array, new: jax.Array, begin: jax.Array) -> jax.Array:
    """rows [U, K, W, H] with new [U, K, P, H] from each row's `begin` on; what would lie beyond W is dropped."""
    rows = place(rows, "batch", "kv_heads", None, None)
    wide = jnp.concatenate([rows, new], axis=2)  # room for padding, which a slice's update would shift instead
    write = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1)
    return jax.vmap(write)(wide, new, begin)[:, :, : rows.shape[2]]
