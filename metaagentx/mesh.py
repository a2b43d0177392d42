"""Where arrays live: one mesh of three axes, and one table from what an axis means to where it is cut.

The same code runs without a mesh (one CPU, no cost) and under `jax.set_mesh(make_mesh(...))`, where axis types are
explicit: an array's sharding is part of its type, and what is not in this table is replicated.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

AXES = ("data", "fsdp", "tensor")

# What an axis means -> the mesh axes that cut it, in order. A mesh axis serves one axis of an array at most.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),  # rows of a batch, slots of a cache
    "replicas": ("data",),  # rows, where `fsdp` cuts d_model
    "embed": ("fsdp",),  # d_model of a weight; activations keep d_model whole
    "vocab": ("tensor",),
    "heads": ("tensor",),  # query heads, or heads * head_dim of a weight
    "kv_heads": ("tensor",),
    "ff": ("tensor",),
    "experts": ("tensor",),
    "layers": (),
    "norm": (),
}

Axes = tuple[str | None, ...]
T = TypeVar("T")


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data * fsdp * tensor` devices (all of this program's unless given).

    Raises:
      ValueError: a size is below 1, or the product is not the number of devices.
    """
    sizes = (data, fsdp, tensor)
    for name, size in zip(AXES, sizes, strict=True):
        if size < 1:
            raise ValueError(f"mesh.{name} must be at least 1, not {size}")
    count = jax.device_count() if devices is None else len(devices)
    if data * fsdp * tensor != count:
        raise ValueError(
            f"mesh.data * mesh.fsdp * mesh.tensor must be the number of devices ({count}), "
            f"not {data} * {fsdp} * {tensor} = {data * fsdp * tensor}"
        )
    types = (AxisType.Explicit,) * 3
    try:
        return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # no side of the slice is an axis: let axes share sides
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(grid, AXES, axis_types=types)


@functools.lru_cache(maxsize=4096)  # the answer is a pure function, and the log line comes once
def partition(axes: Axes, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How an array of `shape`, whose axes mean `axes` (None: replicated), is cut on `mesh`.

    Raises:
      ValueError: as many axes as dimensions were not given, or an axis is not in `RULES`.
    """
    if len(axes) != len(shape):
        raise ValueError(f"axes {axes} name {len(axes)} dimensions of an array of shape {shape}")
    used: set[str] = set()
    cuts: list[tuple[str, ...] | None] = []
    for axis, size in zip(axes, shape, strict=True):
        if axis is not None and axis not in RULES:
            raise ValueError(f"logical axis {axis!r} is not one of {', '.join(RULES)}")
        cut: tuple[str, ...] = ()
        pieces = 1
        for name in () if axis is None else RULES[axis]:
            ways = mesh.shape[name]
            if ways == 1 or name in used:
                continue
            if size % (pieces * ways):
                # Rows that are not cut are work that every device repeats; other axes are seldom a choice.
                level = logging.WARNING if axis == "batch" else logging.INFO
                message = "axis %s of %d does not divide over mesh.%s = %d: replicated"
                logging.log(level, message, axis, size, name, ways)
                continue
            cut, pieces = (*cut, name), pieces * ways
        used.update(cut)
        cuts.append(cut or None)
    return PartitionSpec(*cuts)


def sharding(axes: Axes, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """`partition`, bound to the mesh: for `jax.device_put` and `out_shardings`."""
    return NamedSharding(mesh, partition(axes, shape, mesh))


def unallocated(axes: Axes, shape: tuple[int, ...], dtype: DTypeLike, mesh: Mesh | None) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, and its layout on `mesh`; nothing is allocated."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=None if mesh is None else sharding(axes, shape, mesh))


def cut(axes: Axes, shape: tuple[int, ...]) -> PartitionSpec | None:
    """`partition` on the mesh of `jax.set_mesh`, as `out_sharding` arguments want it.

    None without a mesh, and within `jax.shard_map`, where every device has its own arrays.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.are_all_axes_manual else partition(axes, shape, mesh)


def pieces(axis: str, size: int) -> int:
    """How many pieces an axis of `size` is cut into on the mesh of `jax.set_mesh`; 1 without a mesh."""
    spec, mesh = cut((axis,), (size,)), jax.sharding.get_abstract_mesh()
    return 1 if spec is None else math.prod(mesh.shape[name] for name in _names(spec[0]))


def place(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x` laid out as the table says on the mesh of `jax.set_mesh`; `x` itself without a mesh."""
    spec = cut(axes, x.shape)
    return x if spec is None else jax.sharding.reshard(x, spec)


def gather(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Weights `x`, whole along the mesh axes that cut `rows` [B, ...], for products with these.

    Left to itself, XLA may turn a product with weights that are cut along what is summed into a loop over their pieces,
    each too small for a matrix unit, with the whole sum read and written on every turn. On the way back each device
    sums the gradients of its own rows, and the sum over devices is taken once: also when `x` was used in a loop.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    over = _names(jax.typeof(rows).sharding.spec[0])
    kept = [tuple(n for n in _names(entry) if n not in over) or None for entry in jax.typeof(x).sharding.spec]
    return jax.sharding.reshard(x, PartitionSpec(*kept, reduced=frozenset(over)))


def in_turn(weights: T, x: jax.Array) -> tuple[T, jax.Array]:
    """Both as they are, but nothing of `weights` is gathered before `x` [B, ...] is known.

    For unrolled layers with little work each: XLA would gather the weights of many at once, and run out of memory.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return weights, x
    over = set(_names(jax.typeof(x).sharding.spec[0]))
    specs = [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(weights)]
    if not any(over.intersection(_names(entry)) for spec in specs for entry in spec):
        return weights, x  # whole already: let them be read ahead
    return jax.lax.optimization_barrier((weights, x))


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes that cut one dimension."""
    return (entry,) if isinstance(entry, str) else entry or ()


def reshape(x: jax.Array, shape: tuple[int, ...], axes: Axes) -> jax.Array:
    """`x` in another shape, whose dimensions mean `axes`."""
    return jax.lax.reshape(x, shape, out_sharding=cut(axes, shape))


def is_primary() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0
