"""Prefilling prompts: whole, or in blocks, of which only those that follow a shared beginning are computed.

Letters: U prompts or blocks, P tokens of each, S slots of the cache, V vocabulary, K key-value heads, N query heads,
H head_dim.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from metaagentx.mesh import in_turn, place
from metaagentx.policy.attend import within
from metaagentx.policy.attention import KeyValue, attention
from metaagentx.policy.cache import Cache, Layer
from metaagentx.policy.cache import extend as cached
from metaagentx.policy.config import DecodeKernel, Kernel, ModelConfig
from metaagentx.policy.decode import unstacked
from metaagentx.policy.model import block, embed, rms_norm, rotary, unembed
from metaagentx.policy.params import Params
from metaagentx.policy.rope import Rotation


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
    segments = (positions < lengths[:, None]).astype(jnp.int32)
    rotation = rotary(positions, config)
    x, rows = embed(params, tokens), []
    for layer in unstacked(params, config):
        x, kept = _whole(config, kernel, layer, x, rotation, positions, segments)
        rows.append(kept)
    return _after(params, config, x, lengths), rows


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
      slots: [U] int32, where the prompts are; S for padding. On a mesh U is cut as S is: see `policy.cache.extend`.
      width: no prompt is longer.

    Returns:
      (logits [U, V] float32 after each block, the cache with the blocks in it)
    """
    positions = place(blocks, "batch")[:, None] * tokens.shape[1] + jnp.arange(tokens.shape[1])[None]
    rotation = rotary(positions, config)
    x, updated = embed(params, tokens), []
    for layer, kept in zip(unstacked(params, config), cache, strict=True):
        layer, x = in_turn(layer, x)
        x, kept = _in_blocks(config, kernel, width, layer, x, rotation, positions, kept, slots, blocks)
        updated.append(kept)
    return _after(params, config, x, lengths), updated


# Jitted for their own sake: a layer is traced and lowered once instead of once a layer; XLA inlines the calls.


@functools.partial(jax.jit, static_argnums=(0, 1))
def _whole(
    config: ModelConfig,
    kernel: Kernel,
    layer: Params,
    x: jax.Array,
    rotation: Rotation,
    positions: jax.Array,
    segments: jax.Array,
) -> tuple[jax.Array, KeyValue]:
    """One layer of whole prompts, and their keys and values."""
    return block(layer, config, x, rotation, within(kernel, positions, segments, alone=True))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _in_blocks(
    config: ModelConfig,
    kernel: DecodeKernel,
    width: int,
    layer: Params,
    x: jax.Array,
    rotation: Rotation,
    positions: jax.Array,
    kept: Layer,
    slots: jax.Array,
    blocks: jax.Array,
) -> tuple[jax.Array, Layer]:
    """One layer of blocks, and its cache with the blocks in it."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Layer]:
        layer, (keys, values) = cached(kernel, kept, slots, blocks, (k, v), width)
        return attention(q, keys, values, jnp.arange(width)[None, None] <= positions[:, :, None]), layer

    return block(layer, config, x, rotation, attend)


def _after(params: Params, config: ModelConfig, x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Logits [U, V] after the last of `lengths` tokens of x [U, P, D]."""
    last = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
    return unembed(params, config, rms_norm(last, params["final_norm"], config.norm_eps))
