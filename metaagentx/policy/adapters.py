"""Low-rank adapters (LoRA, arXiv 2106.09685) on the linear maps of the layers: one for all rows, or one per row.

An adapter of a matrix W [O, I] is a pair A [R, I], B [O, R]; the adapted matrix is W + alpha / R * B A. One adapter
is a nested dict {name: {"a": [L, R, I], "b": [L, O, R]}} over the targeted names under "layers" of the weights.

Letters: L layers, N adapters, R rank, O and I the matrix's rows and columns, B rows of a batch.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.nn import initializers
from jax.sharding import Mesh

from metaagentx.mesh import Axes, cut, place, sharding, unallocated
from metaagentx.policy import spec
from metaagentx.policy.config import LINEAR, LoraOptions, ModelConfig
from metaagentx.policy.params import Params
from metaagentx.policy.spec import Spec


class Adapted(struct.PyTreeNode):
    """A matrix with its adapters, in a matrix's place in the weights; `model.linear` applies both."""

    weight: jax.Array  # [O, I]; this and the other arrays with the layers in front while they are stacked
    a: jax.Array  # [N, R, I]
    b: jax.Array  # [N, O, R]
    rows: jax.Array | None  # [B] int32, each row's adapter, -1 for none; None: all N on every row
    scale: float = struct.field(pytree_node=False)


def linear_names(config: ModelConfig) -> tuple[str, ...]:
    """What can be adapted: the layers' matrices, but no expert's."""
    layers = spec.table(config)["layers"]
    return tuple(name for name in LINEAR if len(layers[name].shape) == 3)


def target_names(config: ModelConfig, options: LoraOptions) -> tuple[str, ...]:
    """The names under "layers" that `options.targets` matches.

    Raises:
      ValueError: it matches nothing, or something that is not a linear map (an expert's matrices, a norm, a bias).
    """
    possible = linear_names(config)
    matched = [name for name in spec.table(config)["layers"] if re.fullmatch(options.targets, name)]
    refused = [name for name in matched if name not in possible]
    if refused or not matched:
        problem = f"matches {', '.join(refused)}, which cannot be adapted" if refused else "matches nothing"
        raise ValueError(f"lora.targets {options.targets!r} {problem}; this model's linear maps: {'|'.join(possible)}")
    return tuple(matched)


def table(config: ModelConfig, options: LoraOptions) -> dict[str, dict[str, Spec]]:
    """`Spec`s of one adapter, of its structure; names are PEFT's. A starts as PEFT starts it, B at zero."""
    uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2, batch_axis=0)

    def pair(matrix: Spec) -> dict[str, Spec]:
        (layers, out, in_), (_, out_axis, in_axis) = matrix.shape, matrix.axes
        stem = "base_model.model." + matrix.hf_name.removesuffix(".weight")
        return {
            "a": Spec((layers, options.rank, in_), ("layers", None, in_axis), f"{stem}.lora_A.weight", uniform),
            "b": Spec(
                (layers, out, options.rank), ("layers", out_axis, None), f"{stem}.lora_B.weight", initializers.zeros
            ),
        }

    matrices = spec.table(config)["layers"]
    return {name: pair(matrices[name]) for name in target_names(config, options)}


def abstract(config: ModelConfig, options: LoraOptions, mesh: Mesh | None = None) -> Params:
    """Shapes and dtypes of one adapter, and its layout on `mesh`; nothing is allocated."""
    return jax.tree.map(lambda s: unallocated(s.axes, s.shape, jnp.float32, mesh), table(config, options))


def shardings(config: ModelConfig, options: LoraOptions, mesh: Mesh) -> Params:
    """Where each array of an adapter lives on `mesh`: as its matrix, and whole along the rank."""
    return jax.tree.map(lambda s: sharding(s.axes, s.shape, mesh), table(config, options))


def initialise(config: ModelConfig, options: LoraOptions, key: jax.Array, mesh: Mesh | None = None) -> Params:
    """A fresh adapter, which changes nothing yet, made in place on the mesh; float32 whatever the weights are."""
    return _initialiser(config, options, mesh)(key)


@functools.lru_cache(maxsize=64)  # one program for each, however often it is asked for
def _initialiser(config: ModelConfig, options: LoraOptions, mesh: Mesh | None) -> Callable[[jax.Array], Params]:
    specs, tree = jax.tree.flatten(table(config, options))

    def draw(key: jax.Array) -> Params:
        keys = jax.random.split(key, len(specs))
        return jax.tree.unflatten(tree, [s.init(k, s.shape, jnp.float32) for s, k in zip(specs, keys, strict=True)])

    return jax.jit(draw, out_shardings=None if mesh is None else shardings(config, options, mesh))


def count(config: ModelConfig, options: LoraOptions) -> int:
    """Number of weights of one adapter."""
    return sum(math.prod(s.shape) for s in jax.tree.leaves(table(config, options)))


def attach(base: Params, adapter: Params, options: LoraOptions) -> Params:
    """The weights with `adapter` on every row, for whatever takes weights; differentiable in both."""
    return _attach(base, stack([adapter]), None, options)


def attach_several(base: Params, adapters: Params, rows: jax.Array, options: LoraOptions) -> Params:
    """The weights with an adapter per row.

    Args:
      base: the weights, layers stacked or, as `decode.separate` returns them, a list.
      adapters: as `stack` returns them.
      rows: [B] int32, the adapter of each row of the batch; -1 for none.
    """
    return _attach(base, adapters, rows, options)


def stack(adapters: Sequence[Params]) -> Params:
    """N adapters as one tree of [L, N, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *adapters)


def _attach(base: Params, adapters: Params, rows: jax.Array | None, options: LoraOptions) -> Params:
    def adapted(layers: Params, name: str, a: jax.Array, b: jax.Array) -> Adapted:
        if a.shape[-2] != options.rank:
            raise ValueError(f"adapter of {name} has rank {a.shape[-2]}, lora.rank is {options.rank}")
        stacked = a.ndim == 4
        each = rows if rows is None or not stacked else jnp.broadcast_to(rows[None], (a.shape[0], *rows.shape))
        return Adapted(layers[name], a, b, each, options.scale)

    def attached(layers: Params, adapters: Params) -> Params:
        return {**layers, **{name: adapted(layers, name, **pair) for name, pair in adapters.items()}}

    layers = base["layers"]
    if not isinstance(layers, list):
        return {**base, "layers": attached(layers, adapters)}
    each = (jax.tree.map(operator.itemgetter(i), adapters) for i in range(len(layers)))
    return {**base, "layers": [attached(*pair) for pair in zip(layers, each, strict=True)]}


def low_rank(x: jax.Array, w: Adapted, out: str | None) -> jax.Array:
    """What the adapters of `w` add to its product with x [B, ..., I]: [B, ..., O], whose last axis means `out`."""
    a, b = w.a.astype(x.dtype), w.b.astype(x.dtype)
    outer, inner = x.shape[:-1], ("batch", *(None,) * (x.ndim - 2))
    axes: Axes = (*inner, None, None)
    # All adapters are multiplied and the others' results dropped: the rank is small, and a gather of matrices is not.
    y = jnp.einsum("...i,nri->...nr", x, a, out_sharding=cut(axes, (*outer, *a.shape[:2])))
    if w.rows is not None:
        own = place(w.rows, "batch")[:, None] == jnp.arange(a.shape[0])[None]
        y = jnp.where(jnp.expand_dims(own, (*range(1, x.ndim - 1), x.ndim)), y, 0)
    # A batched product, then a sum: `remat="dots"` keeps no batched product, and this one is cheap to compute again.
    wide = cut((None, *inner, out), (a.shape[0], *outer, b.shape[1]))
    return jnp.sum(jnp.einsum("...nr,nor->n...o", y * w.scale, b, out_sharding=wide), axis=0)


@functools.partial(jax.jit, static_argnums=2)
def merge(base: Params, adapter: Params, options: LoraOptions) -> Params:
    """Plain weights that do what `attach` does: sums in float32, one layer at a time, in the dtype of the base."""

    def add(part: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        w, a, b = part
        delta = jnp.einsum("or,ri->oi", b, a, preferred_element_type=jnp.float32)
        return (w.astype(jnp.float32) + options.scale * delta).astype(w.dtype)

    attached = attach(base, adapter, options)["layers"]
    merged = {name: jax.lax.map(add, (attached[name].weight, pair["a"], pair["b"])) for name, pair in adapter.items()}
    return {**base, "layers": {**base["layers"], **merged}}
