"""Prefilling prompts: whole, or in blocks, of which only those that follow a shared beginning are computed.

Letters: U prompts or blocks, P tokens of each, S slots of the cache, V vocabulary, K key-value heads, N query heads,
H head_dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from metaagentx.mesh import place
from metaagentx.policy.attention import KeyValue, attention, within
from metaagentx.policy.cache import Cache, Layer, read, write
from metaagentx.policy.config import DecodeKernel, Kernel, ModelConfig
from metaagentx.policy.decode import unstacked
from metaagentx.policy.model import block, embed, rms_norm, rotary, unembed
from metaagentx.policy.params import Params


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
    kernel: DecodeKernel,
    cache: Cache,
    tokens: jax.Array,
    blocks: jax.Array,
    lengths: jax.Array,
    slots: jax.Array,
    width: int,
) -> tuple[jax.Array, Cache]:
    """Compute blocks of prompts whose earlier tokens are in the cache, or in other blocks of the same call.

    Args:
      kernel: how the cache is laid out; see `policy.cache`.
      tokens: [U, P] int32, a block each, padded on the right with anything. P divides the cache's capacity.
      blocks: [U] int32, number of the block in its prompt, from 0.
      lengths: [U] int32 tokens of each block, at least 1.
      slots: [U] int32, where the prompts are; S for padding.
      width: no prompt is longer.

    Returns:
      (logits [U, V] float32 after each block, the cache with the blocks in it)
    """
    positions = place(blocks, "batch")[:, None] * tokens.shape[1] + jnp.arange(tokens.shape[1])[None]
    there = jnp.minimum(slots, jax.tree.leaves(cache)[0].shape[0] - 1)

    def attend(kept: Layer, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Layer]:
        kept = write(kernel, kept, slots, blocks, (k, v))
        keys, values = (place(x, "batch", "kv_heads", None, None) for x in read(kernel, kept, there, width))
        return attention(q, keys, values, jnp.arange(width)[None, None] <= positions[:, :, None]), kept

    return _through(params, config, tokens, positions, lengths, [functools.partial(attend, kept) for kept in cache])


def _through(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    lengths: jax.Array,
    attends: Sequence[Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]],
) -> tuple[jax.Array, list[Any]]:
    """The layers, each with its way to attend; logits after the last of `lengths` tokens, and what each layer keeps."""
    rotation = rotary(positions, config)
    x, rows = embed(params, tokens), []
    for layer, attend in zip(unstacked(params, config), attends, strict=True):
        x, kept = block(layer, config, x, rotation, attend)
        rows.append(kept)
    last = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
    return unembed(params, config, rms_norm(last, params["final_norm"], config.norm_eps)), rows
