"""Decoding: one token of every slot at a time, with the block of training. Letters: S slots, V vocabulary."""

from __future__ import annotations

import functools
import operator

import jax

from metaagentx.mesh import in_turn, place
from metaagentx.policy.cache import Cache, Layer, attend
from metaagentx.policy.config import DecodeKernel, ModelConfig
from metaagentx.policy.model import block, embed, rms_norm, rotary, unembed
from metaagentx.policy.params import Params
from metaagentx.policy.rope import Rotation


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
        x, kept = _step(config, kernel, width, layer, x, rotation, kept, positions)
        updated.append(kept)
    return unembed(params, config, rms_norm(x[:, 0], params["final_norm"], config.norm_eps)), updated


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _step(
    config: ModelConfig,
    kernel: DecodeKernel,
    width: int,
    layer: Params,
    x: jax.Array,
    rotation: Rotation,
    kept: Layer,
    positions: jax.Array,
) -> tuple[jax.Array, Layer]:
    """One layer: jitted so that it is traced and lowered once instead of once a layer. XLA inlines the calls."""
    return block(layer, config, x, rotation, functools.partial(attend, kernel, kept, positions, width))


def unstacked(params: Params, config: ModelConfig) -> list[Params]:
    """The weights of each layer: unrolled, decoding is faster than scanned."""
    layers = params["layers"]
    return layers if isinstance(layers, list) else _split(layers, config.layers)


def separate(params: Params, config: ModelConfig) -> Params:
    """The weights with a list of layers in place of the stacked ones, for whatever decodes with them.

    On a CPU XLA copies every layer out of stacked weights at every step, which reads and writes them once more. This is
    a copy made once: twice to three times as fast for few slots (SmolLM2-135M), for the memory of the layers.
    """
    return {**params, "layers": _separate(params["layers"], config.layers)}


def _split(layers: Params, count: int) -> list[Params]:
    return [jax.tree.map(operator.itemgetter(i), layers) for i in range(count)]


_separate = jax.jit(_split, static_argnums=1)
