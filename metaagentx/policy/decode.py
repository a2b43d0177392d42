"""Sampling's half of the model: prefill prompts, then one token of every slot at a time, with the block of training.

Letters: S slots, U prompts, P prompt length, V vocabulary, K key-value heads, H head_dim.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp

from metaagentx.mesh import in_turn, place
from metaagentx.policy.attention import KeyValue, within
from metaagentx.policy.cache import Cache, attend
from metaagentx.policy.config import DecodeKernel, Kernel, ModelConfig
from metaagentx.policy.model import block, embed, rms_norm, rotary, unembed
from metaagentx.policy.params import Params


def prefill(
    params: Params, config: ModelConfig, tokens: jax.Array, lengths: jax.Array, kernel: Kernel
) -> tuple[jax.Array, list[KeyValue]]:
    """Logits [U, V] float32 after each prompt, and its keys and values, each [U, K, P, H], of every layer.

    Args:
      tokens: [U, P] int32, prompts padded on the right with anything.
      lengths: [U] int32 tokens of each prompt, at least 1.
      kernel: how attention is computed; see `policy.attention`.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    segments = (positions < lengths[:, None]).astype(jnp.int32)
    attend_rows = within(kernel, positions, segments)
    rotation = rotary(positions, config)

    x, rows = embed(params, tokens), []
    for layer in unstacked(params, config):
        x, kept = block(layer, config, x, rotation, attend_rows)
        rows.append(kept)
    last = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
    return unembed(params, config, rms_norm(last, params["final_norm"], config.norm_eps)), rows


def decode_step(
    params: Params,
    config: ModelConfig,
    kernel: DecodeKernel,
    cache: Cache,
    tokens: jax.Array,
    positions: jax.Array,
    width: int,
) -> tuple[jax.Array, Cache]:
    """Write each slot's token at its position, and return the logits [S, V] float32 of the next.

    Args:
      kernel: how the cache is laid out and read; see `policy.cache`.
      cache: what it holds beyond a slot's position is never read.
      tokens: [S] int32.
      positions: [S] int32 in [0, width).
      width: no slot's position reaches it.
    """
    positions = place(positions, "batch")
    rotation = rotary(positions[:, None], config)

    x, updated = embed(params, tokens[:, None]), []
    for layer, kept in zip(unstacked(params, config), cache, strict=True):
        layer, x = in_turn(layer, x)
        x, kept = block(layer, config, x, rotation, functools.partial(attend, kernel, kept, positions, width))
        updated.append(kept)
    return unembed(params, config, rms_norm(x[:, 0], params["final_norm"], config.norm_eps)), updated


def unstacked(params: Params, config: ModelConfig) -> list[Params]:
    """The weights of each layer: unrolled, decoding is faster than scanned."""
    return [jax.tree.map(operator.itemgetter(i), params["layers"]) for i in range(config.layers)]
