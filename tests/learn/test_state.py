"""Claims about the state of training: masters, and where everything lives."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn import state as state_module
from metaagentx.learn import update as update_module
from metaagentx.learn.optimizer import descend, optimizer
from metaagentx.learn.options import OptimizerOptions, RoleOptions, StageOptions
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import create
from metaagentx.learn.supervised import begin, imitate
from metaagentx.learn.update import split, update
from metaagentx.mesh import make_mesh
from metaagentx.policy.params import initialise
from tests.learn.examples import COMPUTE, CONFIG, LAYOUTS, RECIPE, ROLES, some_batch

NARROW = replace(CONFIG, dtype="bfloat16")
EXECUTOR = phase(StageOptions(mode="executor_only"), tuple(ROLES), 0)


def host(tree):
    return jax.tree.map(np.array, tree)


def same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def moves(before, after) -> bool:
    return any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)))


@pytest.mark.parametrize("master", [True, False])
def test_a_thousand_steps_too_small_for_bfloat16_add_up_in_masters_alone(master: bool) -> None:
    options = OptimizerOptions(learning_rate=1e-5)
    ones = {"norm": jnp.ones(4, jnp.bfloat16)}
    state = create(ones, {"executor": RoleOptions(optimizer=options)}, "per_role", master)

    @jax.jit
    def train(state):
        def step(state, _):
            gradient = {"norm": jnp.full(4, 0.1)}  # always the same: every step of Adam is the learning rate
            moments = state.opt_states["executor"]
            change, moments = descend(optimizer(options), gradient, moments, state.weights, jnp.bool_(True))
            return state.moved(change, {"executor": moments}, jnp.bool_(True)), None

        return jax.lax.scan(step, state, None, 1000)[0]

    state = train(state)
    if master:
        np.testing.assert_allclose(state.master["norm"], 0.99, rtol=1e-4)
        same(state.params["norm"], state.master["norm"].astype(jnp.bfloat16))
    else:
        assert state.master is None
        same(state.params["norm"], jnp.ones(4, jnp.bfloat16))


def test_float32_weights_are_their_own_masters() -> None:
    assert create(initialise(CONFIG, jax.random.key(0)), ROLES, "per_role", master=True).master is None


def test_updates_move_masters_in_place_and_weights_are_their_cast() -> None:
    state = create(initialise(NARROW, jax.random.key(0)), ROLES, "per_role", master=True)
    before, size = host(state), sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    call = state, None, {"executor": split(some_batch(), 8)}, {"executor": 1.0}
    program = update_module._update.lower(*call, replace(RECIPE, compute=narrow())).compile()
    assert program.memory_analysis().alias_size_in_bytes >= size
    state, _ = program(*call)
    assert moves(before.master, host(state.master))
    same(state.params, jax.tree.map(lambda w: w.astype(jnp.bfloat16), state.master))


def test_where_nothing_trains_masters_stay_bit_for_bit() -> None:
    state = create(initialise(NARROW, jax.random.key(0)), ROLES, "per_role", master=True)
    before = host(state)
    recipe, designer = replace(RECIPE, compute=narrow()), {"designer": some_batch()}
    frozen, _ = update(state, designer, EXECUTOR, recipe)
    same(frozen.replace(step=0), before.replace(step=0))


def test_the_cold_start_keeps_masters_too() -> None:
    options = OptimizerOptions(learning_rate=1e-6)
    state = begin(initialise(NARROW, jax.random.key(0)), options, master=True)
    before = host(state)
    state, _ = imitate(state, some_batch(), options, narrow())
    after = host(state)
    assert moves(before.master["final_norm"], after.master["final_norm"])
    same(after.params["final_norm"], before.params["final_norm"])  # a step that bfloat16 does not see


def narrow():
    return replace(COMPUTE, config=NARROW)


def by_weight(tree, weights):
    """(name of the weight, leaf) of every array of `tree` that belongs to one of `weights`."""
    names = {name for name, _ in named(weights)}
    for path, leaf in named(tree):
        yield next((path[i:] for i in range(len(path)) if path[i:] in names), None), leaf


def named(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey)), leaf


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "x".join(map(str, layout)))
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_everything_lives_where_its_weight_does(layout, optimiser: str) -> None:
    roles = {"executor": RoleOptions(kl=0.1, optimizer=OptimizerOptions(name=optimiser))}
    mesh = make_mesh(*layout)
    with jax.set_mesh(mesh):
        state = create(initialise(NARROW, jax.random.key(0), mesh), roles, "per_role", master=True)
    where = {name: weight.sharding for name, weight in named(state.params)}
    moments = list(by_weight(state.opt_states, state.params))
    found = [*moments, *by_weight(state.master, state.params), *by_weight(state.reference, state.params)]
    for name, leaf in found:
        expected = where[name].spec if name else jax.P()
        assert leaf.sharding.is_equivalent_to(jax.NamedSharding(mesh, expected), leaf.ndim), name
    matrices = sum(name[:1] == ("layers",) and leaf.ndim == 3 for name, leaf in moments if name)
    assert matrices == (14 if optimiser == "adamw" else 7)  # two moments of Adam, one of Muon
    assert all(leaf.size <= 3 for name, leaf in moments if name is None)  # counts, and Muon's three coefficients


def test_no_device_ever_holds_the_whole_of_what_is_cut() -> None:
    mesh = make_mesh(1, 8, 1)
    with jax.set_mesh(mesh):
        params = initialise(NARROW, jax.random.key(0), mesh)
        program = state_module._around.lower(params, tuple(ROLES.items()), "per_role", True).compile()
    memory = program.memory_analysis()
    one_device = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    # Weights, masters and two moments of each role, all of a weight's shard.
    shards = sum(np.prod(w.sharding.shard_shape(w.shape)) for w in jax.tree.leaves(params))
    assert shards * (2 + 4 + 4 * 2 * len(ROLES)) <= one_device < shards * (2 + 4 + 4 * 2 * len(ROLES)) + 1024
    assert shards < sum(w.size for w in jax.tree.leaves(params)) / 6
