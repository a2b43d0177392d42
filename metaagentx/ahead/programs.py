"""The programs of a training step, lowered for a mesh whose devices need not be at hand.

They are the very programs that a run compiles: only their inputs are shapes and layouts instead of arrays.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metaagentx.learn import update as updating
from metaagentx.learn.pack import Batch
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import TrainState, abstract
from metaagentx.policy import params
from metaagentx.policy.config import ModelConfig
from metaagentx.rollout import engine
from metaagentx.rollout.state import EngineState, Weights, empty_state
from metaagentx.settings import Settings

Name = Literal["update", "prefill", "decode"]
NAMES: tuple[Name, ...] = ("update", "prefill", "decode")


def lower(name: Name, settings: Settings, mesh: Mesh) -> jax.stages.Lowered:
    """One of a run's programs for `mesh`, at the largest shapes of the settings. Call it under `jax.set_mesh`.

    update: one optimiser step on the largest bucket of rows of each role that trains at step 0.
    prefill: the largest bucket of prompts of the largest length, into free slots.
    decode: the program of `engine.chunk` decode steps over all slots.
    """
    if name == "update":
        return updating._update.lower(train_state(settings, mesh), None, *batches(settings, mesh), recipe(settings))
    weights, state = Weights(weights_of(settings.model, mesh)), engine_state(settings, mesh)
    if name == "decode":
        eos = _array(mesh, jnp.int32, 1)
        return engine._decode.lower(settings.model, settings.engine.chunk, weights, state, eos)
    rows, width = settings.engine.admit_buckets[-1], settings.engine.prompt_buckets[-1]
    prompts, numbers = _array(mesh, jnp.int32, rows, width), _array(mesh, jnp.int32, rows)
    attention = settings.engine.attention
    return engine._fill.lower(settings.model, attention, weights, state, prompts, numbers, numbers, numbers)


def weights_of(config: ModelConfig, mesh: Mesh) -> params.Params:
    """Shapes and layouts of the weights."""

    def bind(x: jax.ShapeDtypeStruct, where: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return jax.tree.map(bind, params.abstract(config), params.shardings(config, mesh))


def train_state(settings: Settings, mesh: Mesh) -> TrainState:
    """Shapes and layouts of the training state: weights, float32 masters, every role's moments."""
    roles, moments = settings.roles.by_role(), settings.stages.moments
    return _bound(abstract(weights_of(settings.model, mesh), roles, moments, master=True), mesh)


def engine_state(settings: Settings, mesh: Mesh) -> EngineState:
    """Shapes and layouts of the engine's slots and their cache."""
    make = partial(empty_state, settings.model, settings.engine.slots, settings.engine.capacity)
    return _bound(jax.eval_shape(make), mesh)


def batches(settings: Settings, mesh: Mesh) -> tuple[dict[str, Batch], dict[str, jax.ShapeDtypeStruct]]:
    """The largest batch of each role that trains at step 0, in micro-batches, and the scales of their rates."""
    pack = settings.pack
    rows = min(pack.micro_rows, pack.row_buckets[-1])
    array = partial(_array, mesh, jnp.int32), partial(_array, mesh, jnp.float32)
    shape = (pack.row_buckets[-1] // rows, rows, pack.row_length)
    whole, real = array[0](*shape), array[1](*shape)
    batch = Batch(whole, whole, whole, whole, _array(mesh, jnp.bool_, *shape), real, real, real)
    roles = [role for role, scale in phase(settings.stages, 0).trains.items() if scale > 0]
    return {role: batch for role in roles}, {role: array[1]() for role in roles}


def recipe(settings: Settings) -> updating.Recipe:
    """The static half of an update."""
    pack = settings.pack
    compute = updating.Compute(settings.model, pack.micro_rows, pack.chunk, pack.remat, pack.attention)
    roles = tuple(settings.roles.by_role().items())
    return updating.Recipe(compute, settings.loss, roles, settings.stages.moments, settings.train.gap_bound)


def held(tree: Any) -> int:
    """Bytes of arrays on one chip."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _array(mesh: Mesh, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """An array that every chip has whole, as those are that come from the host."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def _bound(tree: Any, mesh: Mesh) -> Any:
    """The tree with every leaf laid out on `mesh` as its type says, and whole where that says nothing."""

    def bind(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = leaf.sharding.spec if leaf.sharding is not None else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(bind, tree)
