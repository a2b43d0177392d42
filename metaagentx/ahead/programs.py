"""The programs of a training step, lowered for a mesh whose devices need not be at hand.

They are the very programs that a run compiles: only their inputs are shapes and layouts instead of arrays. Where each
role has weights of its own, they are those of one role, and the state and cache of the others are `waiting`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metaagentx.learn import update as updating
from metaagentx.learn.options import RoleOptions
from metaagentx.learn.pack import Batch
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import TrainState, abstract
from metaagentx.memory import held
from metaagentx.policy import kernels, params
from metaagentx.policy.attention import Stems
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.decode import separate
from metaagentx.policy.hf_config import read_config
from metaagentx.policy.quantise import in_eight_bits
from metaagentx.rollout.calls import Calls
from metaagentx.rollout.state import EngineState, Weights
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings

Name = Literal["update", "prefill", "fork", "refill", "decode"]
NAMES: tuple[Name, ...] = ("update", "prefill", "fork", "refill", "decode")


def lower(name: Name, settings: Settings, mesh: Mesh) -> jax.stages.Lowered:
    """One of a run's programs for `mesh`, at the largest shapes of the settings. Call it under `jax.set_mesh`.

    update: one optimiser step on the largest bucket of rows of each role that trains at step 0.
    prefill: the largest program that computes prompts: whole ones, or blocks of them.
    fork: the largest that copies beginnings of prompts; refill: the largest that computes the blocks after them.
    decode: the program of `engine.chunk` decode steps over all slots.
    """
    if name == "update":
        return updating._update.lower(
            train_state(settings, mesh), None, *batches(settings, mesh), recipe(settings, mesh)
        )
    calls, width = engine_calls(settings, mesh), settings.engine.prompt_buckets[-1]
    weights, state = Weights(sampled_weights(settings, mesh)), engine_state(settings, mesh)
    if name == "fork":
        program, arguments = calls.fork(state, settings.engine.admit_buckets[-1], width, ())
    elif name == "refill":
        program, arguments = calls.refill(weights, state, calls.blocks[-1], width, ())
    else:
        program, arguments = next((calls.prompts if name == "prefill" else calls.replies)(weights, state))
    return cast(jax.stages.Lowered, program.lower(*arguments))


def compiled_at_start(settings: Settings) -> tuple[Name, ...]:
    """The names of the programs that a run of these settings has."""
    without = {"prefix": (), "prompt": ("refill",), "none": ("fork", "refill")}[settings.engine.share]
    return tuple(name for name in NAMES if name not in without)


def engine_calls(settings: Settings, mesh: Mesh) -> Calls:
    """Those of the engine that a run on the mesh's devices makes. Call it under `jax.set_mesh`."""
    eos, table = np.zeros(1, np.int32), biases(settings, mesh)
    platform = mesh.devices.flat[0].platform
    return Calls(constants(settings), settings.engine, eos, table, settings.truncated, platform)


def attention(name: Name, settings: Settings, mesh: Mesh) -> Any:
    """The kernel that a program takes on the mesh's devices. Call it under `jax.set_mesh`."""
    if name == "update":
        pack, platform = settings.pack, mesh.devices.flat[0].platform
        stems = pack.prompt_length > 0
        return kernels.for_packed(pack.attention, constants(settings), pack.width, platform, stems)
    calls = engine_calls(settings, mesh)
    return calls.kernel if name == "prefill" else calls.decode_kernel


def constants(settings: Settings) -> ModelConfig:
    """The model's constants: of the settings, or of the published config.json that they name."""
    if settings.model is not None:
        return settings.model
    options = settings.pretrained
    if not options.published:
        raise SettingsError("config.pretrained.published is needed: the checkpoint's config.json, without its weights")
    model = read_config(options.published, options.dtype)
    return replace(model, max_length=options.max_length or model.max_length)


def roles_of(settings: Settings) -> dict[str, RoleOptions]:
    """The roles that the one policy serves whose programs these are: of separate ones, of one that trains at step 0.

    Raises SettingsError for layout "adapters", whose programs are not covered.
    """
    layout = settings.policies.layout
    if layout == "adapters":
        raise SettingsError(
            "config.policies.layout 'adapters' cannot be compiled ahead of time: 'shared' or 'split' can"
        )
    names = settings.role_names if layout == "shared" else sorted(training(settings))[-1:]
    return {role: settings.roles[role] for role in names}


def training(settings: Settings) -> list[str]:
    """The roles that train at step 0. Raises SettingsError if none does."""
    roles = [role for role, scale in phase(settings.stages, settings.learners, 0).trains.items() if scale > 0]
    if not roles:
        raise SettingsError("config.stages.mode 'none' trains nothing: there is no update to compile")
    return roles


def sampled_weights(settings: Settings, mesh: Mesh) -> params.Params:
    """Shapes and layouts of what the engine samples from: the weights, or a copy that `Engine.load` makes of them."""
    model = constants(settings)
    weights = params.abstract(model, mesh)
    if settings.engine.whole:
        weights = _bound(jax.eval_shape(partial(params.whole, model), weights), mesh)
    if settings.engine.weights == "int8":
        weights = _bound(jax.eval_shape(partial(in_eight_bits, model), weights), mesh)
    if settings.engine.separates(mesh.devices.flat[0].platform):
        weights = _bound(jax.eval_shape(partial(separate, config=model), weights), mesh)
    return weights


def train_state(settings: Settings, mesh: Mesh) -> TrainState:
    """Shapes and layouts of the training state: weights, float32 masters, every role's moments."""
    weights, moments = params.abstract(constants(settings), mesh), settings.stages.moments
    return _bound(abstract(weights, roles_of(settings), moments, settings.policies.master), mesh)


def engine_state(settings: Settings, mesh: Mesh) -> EngineState:
    """Shapes and layouts of the engine's slots and their cache."""
    program, arguments = engine_calls(settings, mesh).empty()
    return cast(EngineState, _bound(program.eval_shape(*arguments), mesh))


def biases(settings: Settings, mesh: Mesh) -> jax.ShapeDtypeStruct | None:
    """The shape of what is added to logits: a row for each role that has a bias or mask, and one of zeros."""
    count = sum(sampling.biased for sampling in settings.sampling.values())
    return _array(mesh, jnp.float32, 1 + count, constants(settings).vocab_size) if count else None


def batches(settings: Settings, mesh: Mesh) -> tuple[dict[str, Batch], dict[str, jax.ShapeDtypeStruct]]:
    """The largest batch of each role that trains at step 0, in micro-batches, and the scales of their rates."""
    pack = settings.pack
    rows = min(pack.micro_rows, pack.row_buckets[-1])
    array = partial(_array, mesh, jnp.int32), partial(_array, mesh, jnp.float32)
    shape = (pack.row_buckets[-1] // rows, rows, pack.width)
    whole, real = array[0](*shape), array[1](*shape)
    kept, old = real if settings.reshaped else None, real if settings.train.updates > 1 else None
    stems = Stems(cast(Any, whole), trunk=pack.prompt_length, branch=pack.row_length) if pack.prompt_length else None
    batch = Batch(whole, whole, whole, whole, _array(mesh, jnp.bool_, *shape), real, real, real, kept, old, stems)
    roles = [role for role in training(settings) if role in roles_of(settings)]
    return dict.fromkeys(roles, batch), dict.fromkeys(roles, array[1]())


def recipe(settings: Settings, mesh: Mesh) -> updating.Recipe:
    """The static half of an update."""
    pack = settings.pack
    kernel = attention("update", settings, mesh)
    compute = updating.Compute(constants(settings), pack.micro_rows, pack.chunk, pack.remat, kernel, unroll=pack.unroll)
    roles = tuple(roles_of(settings).items())
    return updating.Recipe(compute, settings.loss, roles, settings.stages.moments, settings.train.gap_bound)


def waiting(name: Name, settings: Settings, mesh: Mesh) -> int:
    """Bytes that a chip holds besides a program's own: the slots during an update, masters and moments otherwise.

    Where roles have weights of their own, also the state and slots of the others.
    """
    state, slots = train_state(settings, mesh), held(engine_state(settings, mesh))
    engine, platform = settings.engine, mesh.devices.flat[0].platform
    copied = engine.whole or engine.weights == "int8" or engine.separates(platform)
    copy = held(sampled_weights(settings, mesh)) if copied else 0
    own = slots + copy if name == "update" else held(state) - (0 if copied else held(state.params))
    here = [role for role in settings.role_names if role not in settings.policies.served]
    others = len(here) - 1 if settings.policies.layout == "split" else 0
    return own + others * (held(state) + slots + copy)


def _array(mesh: Mesh, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """An array that every chip has whole, as those are that come from the host."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def _bound(tree: Any, mesh: Mesh) -> Any:
    """The tree with every leaf laid out on `mesh` as its type says, and whole where that says nothing."""

    def bind(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = leaf.sharding.spec if leaf.sharding is not None else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(bind, tree)
