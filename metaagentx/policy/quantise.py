"""Weights in 8 bits to sample with: a scale for each row of a matrix; tokens are multiplied with them in 16.

Vector-wise quantisation, symmetric (LLM.int8(), arXiv 2208.07339, section 3.1; two integers for each activation in
place of its float outliers). Products are sums of integers, exact whatever else is in the batch. What is sampled so is
not quite the policy that is trained: log-probabilities differ, which importance weights have to correct.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from metaagentx.mesh import Axes, cut, gather, place
from metaagentx.policy.config import LINEAR, ModelConfig
from metaagentx.policy.params import Params

LARGEST = 127


class Int8(struct.PyTreeNode):
    """A matrix [..., O, I], or several: `weight * scale[..., None]`."""

    weight: jax.Array  # [..., O, I] int8
    scale: jax.Array  # [..., O] float32


def quantise(x: jax.Array) -> Int8:
    """x [..., O, I] with the least error that a scale of each row allows without clipping; rows of zeros stay zeros."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / LARGEST
    return Int8(jnp.round(x / jnp.where(scale > 0, scale, 1)[..., None]).astype(jnp.int8), scale)


@functools.partial(jax.jit, static_argnums=0)
def in_eight_bits(config: ModelConfig, params: Params) -> Params:
    """The weights with matrices of the layers and the head in 8 bits; embedding, router and experts as they are."""
    names = LINEAR if config.experts is None else LINEAR[:4]
    layers = params["layers"] | {name: quantise(params["layers"][name]) for name in names}
    return params | {"layers": layers, "head": quantise(params["embed" if config.tied_embeddings else "head"])}


def product(x: jax.Array, w: Int8, out: str | None) -> jax.Array:
    """x [B, ..., I], w [O, I] -> [B, ..., O] float32, whose last axis means `out`.

    A token is two rows of integers, what the first leaves over in the second: in eight bits alone its few large
    numbers would cost all others their precision. On a CPU the second row is nearly free: weights are read once.
    """
    first = quantise(x)
    rest = x.astype(jnp.float32) / jnp.where(first.scale > 0, first.scale, 1)[..., None] - first.weight
    rows = jnp.stack([first.weight, jnp.round(rest * 2 * LARGEST).astype(jnp.int8)], axis=1)  # [B, 2, ..., I]
    axes: Axes = ("batch", *(None,) * (rows.ndim - 2), out)
    where = cut(axes, (*rows.shape[:-1], w.weight.shape[0]))
    weight, scale = gather(w.weight, x), jnp.expand_dims(place(w.scale, out), range(x.ndim - 1))
    y = jnp.einsum("...i,oi->...o", rows, weight, preferred_element_type=jnp.int32, out_sharding=where)
    y = y.astype(jnp.float32)
    return (y[:, 0] + y[:, 1] / (2 * LARGEST)) * first.scale[..., None] * scale
