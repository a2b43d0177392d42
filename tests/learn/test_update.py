"""Claims about one step of a policy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn import update as module
from metaagentx.learn.options import LossOptions, OptimizerOptions, PackOptions, RoleOptions, StageOptions
from metaagentx.learn.pack import pack
from metaagentx.learn.schedule import phase
from metaagentx.learn.state import create
from metaagentx.learn.update import Recipe, accumulate, describe, freeze_old, policy_loss, rows_over_mesh, split, update
from metaagentx.mesh import make_mesh
from metaagentx.policy.config import Remat
from metaagentx.policy.params import initialise, shardings
from tests.learn.examples import COMPUTE, CONFIG, PACK, RECIPE, ROLE, ROLES, random_trajectories, some_batch, trajectory

JOINT, EXECUTOR, DESIGNER = (
    phase(StageOptions(mode=mode), tuple(ROLES), 0) for mode in ("joint", "executor_only", "designer_only")
)


@cache
def initial(seed: int = 0):
    return host(initialise(CONFIG, jax.random.key(seed)))


@cache
def blank(moments: str = "per_role"):
    return host(create(device(initial()), ROLES, moments, master=True))


def fresh(moments: str = "per_role"):
    """A new state, on the device, for one caller to donate."""
    return device(blank(moments))


@partial(jax.jit, static_argnames=("recipe", "role"))
def gradient(params, batch, recipe: Recipe = RECIPE, role: str = "executor", reference=None):
    objective = partial(policy_loss, base=None, reference=reference, role=dict(recipe.roles)[role], recipe=recipe)
    loss, found, _ = accumulate(objective, params, rows_over_mesh(batch))
    return loss, found


def close(a, b, atol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=0), a, b)


def same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def host(tree):
    """A copy that survives donation."""
    return jax.tree.map(np.array, tree)


def device(tree):
    return jax.tree.map(jnp.array, tree)


ALL_TERMS = replace(
    RECIPE,
    loss=LossOptions(ratio="sequence", aggregation="execution_mean", kl_estimator="k2"),
    roles=(("executor", replace(ROLE, entropy=0.1, kl=0.2)),),
)


def test_gradient_depends_neither_on_micro_batches_nor_on_row_order() -> None:
    params, reference = initial(), initial(seed=1)
    batch = some_batch(loss=ALL_TERMS.loss)
    rows = batch.tokens.shape[0]
    expected = gradient(params, split(batch, rows), ALL_TERMS, reference=reference)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected[1])) > 1e-2
    order = np.random.default_rng(1).permutation(rows)
    shuffled = jax.tree.map(lambda x: x[order], batch)
    for other in (batch, shuffled):
        close(gradient(params, split(other, rows // 4), ALL_TERMS, reference=reference), expected, 1e-6)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "execution_mean", "constant"])
def test_zero_advantages_may_be_left_out_without_changing_the_gradient(aggregation: str) -> None:
    params, loss = initial(), LossOptions(aggregation=aggregation)
    whole, thin = (some_batch(keep_zero=keep, loss=loss) for keep in (True, False))
    assert thin.mask.sum() < whole.mask.sum()
    close(gradient(params, split(whole, 32))[1], gradient(params, split(thin, 32))[1], 1e-6)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_layers_with_code_of_their_own_have_the_gradient_of_those_in_a_loop(remat: Remat) -> None:
    unrolled = replace(RECIPE, compute=replace(RECIPE.compute, remat=remat, unroll=True))
    params, batch = initial(), split(some_batch(), 8)
    close(gradient(params, batch, unrolled), gradient(params, batch), 1e-6)


def test_what_padding_holds_changes_no_bit() -> None:
    params, batch = initial(), some_batch()
    padding = batch.segments == 0
    dirty = batch.replace(tokens=np.where(padding, 7, batch.tokens), targets=np.where(padding, 3, batch.targets))
    same(gradient(params, split(batch, 32)), gradient(params, split(dirty, 32)))


def test_gradient_is_the_policy_gradient_of_each_token() -> None:
    """On-policy: sum of weight * importance * advantage * grad log p, by one trajectory at a time."""
    params, trajectories = initial(), random_trajectories(4)
    advantages = np.array([1.0, -0.5, 2.0, 0.3], np.float32)
    total = sum(t.generated for t in trajectories)

    @jax.jit
    @jax.grad
    def each(params, batch, advantage):
        logp, _ = module.logprobs(params, batch, COMPUTE)
        weight = jnp.minimum(jnp.exp(jax.lax.stop_gradient(logp) - batch.sampler), 2.0)
        return -advantage * jnp.sum(jnp.where(batch.mask, weight * logp, 0)) / total

    rows = replace(PACK, row_buckets=(1,))
    alone = [pack([t], np.ones(1, np.float32), rows, LossOptions(), True) for t in trajectories]
    parts = [each(params, one, a) for one, a in zip(alone, advantages, strict=True)]
    batch = pack(trajectories, advantages, replace(PACK, row_buckets=(32,)), LossOptions(), False)
    close(gradient(params, split(batch, 32))[1], jax.tree.map(lambda *leaves: sum(leaves), *parts), 1e-5)


def test_an_update_on_a_mesh_equals_one_device_and_keeps_the_layout() -> None:
    options = OptimizerOptions(name="muon", learning_rate=1e-3, muon_learning_rate=1e-3, eps=1e-3)
    roles = {"executor": RoleOptions(optimizer=options)}
    recipe = replace(RECIPE, roles=tuple(roles.items()))
    batches, mesh = {"executor": some_batch()}, make_mesh(2, 2, 2)
    expected, _ = update(create(device(initial()), roles, "per_role", master=True), batches, EXECUTOR, recipe)
    with jax.set_mesh(mesh):
        state = create(jax.device_put(initial(), shardings(CONFIG, mesh)), roles, "per_role", master=True)
        where = jax.tree.map(lambda x: x.sharding, state)
        found, metrics = update(state, batches, EXECUTOR, recipe)
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), found, where))
    cut = found.opt_states["executor"][1].inner_states["muon"].inner_state[0].mu["layers"]["up"].sharding
    assert cut == found.params["layers"]["up"].sharding != found.params["final_norm"].sharding
    close(host(found), host(expected), 2e-5)
    assert np.isfinite(float(metrics["executor/ratio_p99"]))


def test_a_hard_frozen_role_keeps_its_moments_bit_for_bit_and_does_not_matter() -> None:
    batches = {"executor": some_batch(), "designer": some_batch(seed=2)}
    state, _ = update(fresh(), batches, JOINT, RECIPE)  # both have moments now
    before = host(state)
    state, metrics = update(state, batches, EXECUTOR, RECIPE)
    same(state.opt_states["designer"], before.opt_states["designer"])
    assert not any(name.startswith("designer") for name in metrics)

    alone, _ = update(device(before), {"executor": batches["executor"]}, EXECUTOR, RECIPE)
    same(state.params, alone.params)
    same(state.opt_states["executor"], alone.opt_states["executor"])


def test_where_nothing_trains_only_the_step_moves() -> None:
    state = fresh()
    before = host(state)
    state, metrics = update(
        state, {"executor": some_batch()}, phase(StageOptions(mode="none"), tuple(ROLES), 0), RECIPE
    )
    same(state.params, before.params)
    same(state.opt_states, before.opt_states)
    assert (int(state.step), int(state.version), metrics) == (1, 0, {})


def test_soft_freeze_scales_the_learning_rate() -> None:
    batches = {"executor": some_batch(), "designer": some_batch(seed=2)}
    before = initial()

    def move(scale: float):
        soft = phase(StageOptions(freeze="soft", soft_scale=scale, mode="designer_only"), tuple(ROLES), 0)
        executor = {"executor": batches["executor"]}
        return jax.tree.map(lambda a, b: np.array(a) - b, update(fresh(), executor, soft, RECIPE)[0].params, before)

    close(move(0.5), jax.tree.map(lambda x: 5 * x, move(0.1)), 1e-6)


def test_shared_moments_take_the_weighted_sum_of_gradients() -> None:
    roles = {"designer": replace(ROLE, weight=0.5), "executor": replace(ROLE, weight=2.0)}
    recipe = replace(RECIPE, roles=tuple(roles.items()), moments="shared", compute=replace(COMPUTE, micro_rows=32))
    batches = {"executor": some_batch(), "designer": some_batch(seed=2)}
    d, e = (gradient(initial(), split(batches[role], 32))[1] for role in ("designer", "executor"))
    state, _ = update(fresh("shared"), batches, JOINT, recipe)
    close(state.opt_states["shared"][0].mu, jax.tree.map(lambda d, e: 0.1 * (0.5 * d + 2 * e), d, e), 1e-6)


def test_a_batch_that_teaches_nothing_moves_neither_weights_nor_moments() -> None:
    state, _ = update(fresh(), {"executor": some_batch()}, EXECUTOR, RECIPE)  # there is momentum now
    before = host(state)
    equal = some_batch()
    equal = equal.replace(advantages=np.zeros_like(equal.advantages))
    state, metrics = update(state, {"executor": equal}, EXECUTOR, RECIPE)
    same(state.replace(step=0), before.replace(step=0))
    assert (int(state.step), int(metrics["executor/tokens"])) == (2, equal.mask.sum())

    # With an entropy term the same batch does teach.
    recipe = replace(RECIPE, roles=(("executor", replace(ROLE, entropy=0.1)),))
    state, _ = update(state, {"executor": equal}, EXECUTOR, recipe)
    assert (int(state.version), int(before.version)) == (2, 1)


def test_beside_a_role_that_learns_one_that_cannot_keeps_its_moments() -> None:
    batches = {"executor": some_batch(), "designer": some_batch(seed=2)}
    state, _ = update(fresh(), batches, JOINT, RECIPE)
    before = host(state)
    batches["designer"] = batches["designer"].replace(advantages=np.zeros_like(batches["designer"].advantages))
    joint, _ = update(state, batches, JOINT, RECIPE)
    alone, _ = update(device(before), batches, EXECUTOR, RECIPE)
    same(joint.opt_states["designer"], before.opt_states["designer"])
    close(joint.params, alone.params, 1e-6)


def test_shared_moments_of_different_optimisers_are_an_error() -> None:
    with pytest.raises(ValueError, match="needs one optimizer"):
        create(initial(), {"designer": ROLE, "executor": RoleOptions()}, "shared", master=True)


def test_the_rewarded_token_becomes_likelier() -> None:
    """A bandit: after token 1, token 2 is rewarded and token 3 is not."""
    good, bad = (trajectory([1, token], 1, ids=(0, 0, token)) for token in (2, 3))
    batch = pack([good, bad], np.array([0.7, -0.7], np.float32), replace(PACK, row_buckets=(32,)), LossOptions(), False)
    state = fresh()

    def probability(params) -> float:
        return float(jnp.exp(freeze_old(params, batch, COMPUTE).old[0, 0, 0]))

    before = probability(state.params)
    for _ in range(20):
        state, _ = update(state, {"executor": batch}, EXECUTOR, RECIPE)
    assert probability(state.params) > 3 * before


def test_metrics_measure_gap_entropy_and_clipping() -> None:
    params, batch = initial(), some_batch()
    exact = freeze_old(params, batch, COMPUTE).old.reshape(batch.mask.shape)
    shifted = batch.replace(sampler=np.where(batch.mask, exact - 0.1, 0), old=exact - 1.0)

    @jax.jit
    def measure(params, batch):
        tokens = policy_loss(params, batch, base=None, reference=None, role=ROLE, recipe=RECIPE)[1]
        return describe(*jax.tree.map(lambda x: x[None], (batch, tokens)), gap_bound=0.05)

    found = {name: float(value) for name, value in measure(params, shifted).items()}
    assert found["tokens"] == batch.mask.sum()
    for name in ("gap_mean", "gap_max"):
        assert found[name] == pytest.approx(0.1, rel=1e-3)
    assert found["gap_k3"] == pytest.approx(np.exp(0.1) - 1.1, rel=1e-2)
    for name in ("ratio_p01", "ratio_p50", "ratio_p99"):
        assert found[name] == pytest.approx(np.exp(0.1), rel=1e-3)
    assert found["gap_exceeded"] == 1
    # Every ratio is e: the gain of every positive advantage is out of bounds.
    assert found["clip_share"] == pytest.approx((batch.advantages > 0).sum() / batch.mask.sum(), rel=1e-5)
    assert 0 < found["entropy"] <= np.log(CONFIG.vocab_size)


def test_a_gap_that_is_no_number_exceeds_every_bound() -> None:
    batch = some_batch()
    tokens = {"logp": jnp.full(batch.mask.shape, jnp.nan)}
    found = describe(*jax.tree.map(lambda x: x[None], (batch, tokens)), gap_bound=1e9)
    assert np.isnan(found["gap_mean"])
    assert found["gap_exceeded"] == 1


def test_steady_state_compiles_once() -> None:
    state, _ = update(fresh(), {"executor": some_batch()}, EXECUTOR, RECIPE)
    programs = module._update._cache_size()
    for seed in (1, 2):
        state, _ = update(state, {"executor": some_batch(seed=seed)}, EXECUTOR, RECIPE)
    assert module._update._cache_size() == programs > 0
    assert (int(state.step), int(state.version)) == (3, 3)


def test_rows_that_do_not_divide_are_an_error_that_names_the_keys() -> None:
    with pytest.raises(ValueError, match=r"pack\.row_buckets.*pack\.micro_rows"):
        split(pack([], np.zeros(0, np.float32), PackOptions(16, (12,), 12), LossOptions(), True), 8)
    with pytest.raises(ValueError, match=r"pack\.row_buckets .* pack\.micro_rows \(8\) or below it, not 12"):
        PackOptions(16, (4, 12), 8)
