"""Claims about the state of training: masters, and where everything lives."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn.optimizer import descend, optimizer
from metaagentx.learn.options import OptimizerOptions, RoleOptions, StageOptions
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import create
from metaagentx.learn.supervised import begin, imitate
from metaagentx.learn.update import update
from metaagentx.mesh import make_mesh
from metaagentx.policy.params import initialise
from tests.learn.examples import COMPUTE, CONFIG, LAYOUTS, RECIPE, ROLE, ROLES, some_batch

NARROW = replace(CONFIG, dtype="bfloat16")
EXECUTOR = phase(StageOptions(mode="executor_only"), 0)


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


def test_updates_move_masters_and_weights_are_their_cast() -> None:
    state = create(initialise(NARROW, jax.random.key(0)), ROLES, "per_role", master=True)
    before = host(state)
    state, _ = update(state, {"executor": some_batch()}, EXECUTOR, replace(RECIPE, compute=narrow()))
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
