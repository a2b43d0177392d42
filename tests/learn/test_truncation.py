"""Claims about learning from tokens that were drawn under top-k, top-p or a mask."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn.loss import importance_weight
from metaagentx.learn.options import LossOptions
from metaagentx.learn.pack import blank, pack
from metaagentx.learn.update import accumulate, describe, policy_loss, rows_over_mesh, split
from metaagentx.policy.params import initialise
from tests.learn.examples import CONFIG, PACK, RECIPE, ROLE, random_trajectories


def with_kept(value, count=12):
    """Trajectories, every second of which has this array of log masses where there is loss."""
    rows = random_trajectories(count)
    return [replace(t, kept=value * t.loss_mask.astype(np.float32)) if i % 2 else t for i, t in enumerate(rows)]


def packed(trajectories, loss=RECIPE.loss):
    advantages = np.linspace(-1, 1, len(trajectories)).astype(np.float32)
    return pack(trajectories, advantages, PACK, loss, keep_zero=False)


@partial(jax.jit, static_argnames="recipe")
def gradient(params, batch, recipe=RECIPE):
    objective = partial(policy_loss, base=None, reference=None, role=ROLE, recipe=recipe)
    loss, found, tokens = accumulate(objective, params, rows_over_mesh(batch))
    return loss, found, describe(batch, tokens, 0.1)


def micro(batch):
    return split(batch, PACK.micro_rows)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_was_kept_lies_where_its_token_is_predicted():
    rows = with_kept(-0.5)
    batch = packed(rows)
    assert batch.kept.sum() == -0.5 * sum(t.generated for t in rows[1::2])
    for row, segments in enumerate(batch.segments):
        for segment in range(1, segments.max(initial=0) + 1):
            own = batch.kept[row][(segments == segment) & batch.mask[row]]
            assert len(set(own.tolist())) == 1
    assert not batch.kept[~batch.mask].any()


def test_the_batch_that_programs_are_compiled_for_has_the_arrays_of_those_to_come():
    for rows, reshaped in ((with_kept(-0.5), True), (random_trajectories(4), False)):
        ahead = blank(PACK, RECIPE.loss, reshaped, PACK.row_buckets[-1])
        assert jax.tree.structure(ahead) == jax.tree.structure(packed(rows))
        assert not ahead.mask.any()


def test_whether_a_batch_has_the_array_depends_on_all_trajectories_and_not_on_those_that_teach():
    rows = with_kept(-0.5, 4)
    nothing = np.zeros(4, np.float32)
    assert pack(rows, nothing, PACK, RECIPE.loss, keep_zero=False).kept is not None
    assert packed(random_trajectories(4)).kept is None


def test_kept_masses_of_one_change_no_bit():
    params = initialise(CONFIG, jax.random.key(0))
    plain, ones = packed(random_trajectories(12)), packed(with_kept(0.0))
    assert ones.kept is not None
    same(gradient(params, micro(plain)), gradient(params, micro(ones)))


def test_the_weight_is_that_of_the_renormalised_distribution_and_the_gap_that_of_the_plain_one():
    params = initialise(CONFIG, jax.random.key(0))
    recipe = replace(RECIPE, loss=replace(RECIPE.loss, importance_cap=1e6))
    every = [replace(t, kept=np.float32(-0.5) * t.loss_mask) for t in random_trajectories(12)]
    moved = [replace(t, logprobs=t.logprobs + 0.5 * t.loss_mask) for t in random_trajectories(12)]
    found, expected = gradient(params, micro(packed(every)), recipe), gradient(params, micro(packed(moved)), recipe)
    same(found[:2], expected[:2])
    plain = gradient(params, micro(packed(random_trajectories(12))), recipe)
    same({k: v for k, v in found[2].items() if k != "loss"}, {k: v for k, v in plain[2].items() if k != "loss"})
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), found[1],
                 jax.tree.map(lambda g: g * np.exp(-0.5), plain[1]))  # fmt: skip


@pytest.mark.parametrize("left", [(0, 1, 2, 3, 4), (0, 2), (3,)])
def test_the_expected_gradient_is_that_of_the_reward_that_can_be_reached(left):
    """Over all draws of five tokens: sum over those left of p A d log p, whatever q renormalises."""
    logits, advantages = jnp.array([0.3, -1.0, 2.0, 0.0, 0.5]), jnp.array([1.0, -2.0, 0.5, 3.0, -1.0])
    some = jnp.array(left)

    def loss(logits):
        logp = jax.nn.log_softmax(logits)[some]
        kept = jax.nn.logsumexp(jax.lax.stop_gradient(logp))
        drawn = jax.lax.stop_gradient(logp) - kept
        weight = importance_weight(jax.lax.stop_gradient(logp), drawn, LossOptions().importance_cap)
        return jnp.sum(jnp.exp(drawn) * weight * advantages[some] * logp)

    def reachable(logits):
        return jnp.sum(jax.nn.softmax(logits)[some] * advantages[some])

    np.testing.assert_allclose(jax.grad(loss)(logits), jax.grad(reachable)(logits), atol=1e-6)
