"""From the table of weights to the weights: shapes, places, values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from metaagentx.mesh import place, sharding, unallocated
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.spec import Spec, table

Params = dict[str, Any]  # nested dict of arrays, as `spec.table` lays it out


def abstract(config: ModelConfig, mesh: Mesh | None = None) -> Params:
    """Shapes and dtypes of the weights, and their layouts on `mesh`; nothing is allocated."""
    return jax.tree.map(lambda spec: unallocated(spec.axes, spec.shape, config.dtype, mesh), table(config))


def shardings(config: ModelConfig, mesh: Mesh) -> Params:
    """Where each array of weights lives on `mesh`."""
    return jax.tree.map(lambda spec: sharding(spec.axes, spec.shape, mesh), table(config))


def whole(config: ModelConfig, params: Params) -> Params:
    """The weights gathered over the mesh axis that cuts d_model, still cut as otherwise; themselves without a mesh.

    For decoding: one token is too little work to hide behind it that every layer's weights are gathered first.
    """

    def gather(spec: Spec, x: jax.Array) -> jax.Array:
        return place(x, *(None if axis == "embed" else axis for axis in spec.axes))

    return jax.tree.map(gather, table(config), params)


def initialise(config: ModelConfig, key: jax.Array, mesh: Mesh | None = None) -> Params:
    """Fresh weights, made in place on the mesh (on the default device without one): no host ever holds them all."""
    return _initialiser(config, mesh)(key)


@functools.lru_cache(maxsize=64)  # one program for each, however often it is asked for
def _initialiser(config: ModelConfig, mesh: Mesh | None) -> Callable[[jax.Array], Params]:
    specs, tree = jax.tree.flatten(table(config))

    def draw(key: jax.Array) -> Params:
        keys = jax.random.split(key, len(specs))
        return jax.tree.unflatten(
            tree, [spec.init(k, spec.shape, config.dtype) for spec, k in zip(specs, keys, strict=True)]
        )

    return jax.jit(draw, out_shardings=None if mesh is None else shardings(config, mesh))


def count(config: ModelConfig) -> int:
    """Number of weights."""
    return sum(math.prod(spec.shape) for spec in jax.tree.leaves(table(config)))
