from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters, model, params
from metaagentx.policy.config import LoraOptions
from metaagentx.rollout.compilation import count_compilations
from tests.policy import tiny

OPTIONS = LoraOptions(rank=4, alpha=6.0)
ROWS, LENGTH = 4, 8
CONFIG = tiny.config()
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (ROWS, LENGTH)).astype(np.int32)


@pytest.fixture(scope="module")
def base():
    return params.initialise(CONFIG, jax.random.key(0))


def noisy(seed, config=CONFIG, options=OPTIONS):
    """An adapter that changes a lot."""
    leaves, tree = jax.tree.flatten(adapters.abstract(config, options))
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype) for leaf in leaves])


@functools.partial(jax.jit, static_argnums=(1, 3))
def logits(weights, config, tokens, remat="none"):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    hidden = model.forward(weights, config, tokens, positions, jnp.ones_like(tokens), remat)
    return model.unembed(weights, config, hidden)


def test_a_fresh_adapter_changes_no_bit(base):
    adapter = adapters.initialise(CONFIG, OPTIONS, jax.random.key(1))
    assert jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), adapter) == adapters.abstract(CONFIG, OPTIONS)
    attached = logits(adapters.attach(base, adapter, OPTIONS), CONFIG, TOKENS)
    np.testing.assert_array_equal(attached, logits(base, CONFIG, TOKENS))


def test_an_attached_adapter_is_the_merged_matrix(base):
    adapter = noisy(1)
    merged = adapters.merge(base, adapter, OPTIONS)
    for name, pair in adapter.items():
        expected = base["layers"][name] + 6.0 / 4 * np.matmul(np.asarray(pair["b"]), np.asarray(pair["a"]))
        np.testing.assert_allclose(merged["layers"][name], expected, atol=1e-5)
    attached = logits(adapters.attach(base, adapter, OPTIONS), CONFIG, TOKENS)
    np.testing.assert_allclose(attached, logits(merged, CONFIG, TOKENS), atol=1e-4)
    assert np.abs(attached - logits(base, CONFIG, TOKENS)).max() > 0.1


def test_each_row_has_its_own_adapter_and_does_not_see_the_others(base):
    each = [noisy(seed) for seed in (1, 2, 3)]
    rows = np.int32([2, -1, 0, 2])
    several = logits(adapters.attach_several(base, adapters.stack(each), rows, OPTIONS), CONFIG, TOKENS)
    for row, number in enumerate(rows):
        alone = base if number < 0 else adapters.attach(base, each[number], OPTIONS)
        np.testing.assert_allclose(several[row], logits(alone, CONFIG, TOKENS)[row], atol=1e-5)
    changed = adapters.stack([*each[:2], jax.tree.map(lambda x: -5 * x, each[2])])
    other = logits(adapters.attach_several(base, changed, rows, OPTIONS), CONFIG, TOKENS)
    np.testing.assert_array_equal(other[1:3], several[1:3])
    assert (other[0] != several[0]).any()


def loss(adapter, base, remat="none"):
    attached = adapters.attach(base, adapter, OPTIONS)
    return jnp.mean(jax.nn.logsumexp(logits(attached, CONFIG, TOKENS, remat), axis=-1))


gradient = jax.jit(jax.grad(loss), static_argnums=2)


def test_the_gradient_is_the_chain_rule_through_the_merged_matrix(base):
    adapter = noisy(4)

    def dense(weights):
        return jnp.mean(jax.nn.logsumexp(logits(weights, CONFIG, TOKENS), axis=-1))

    full = jax.jit(jax.grad(dense))(adapters.merge(base, adapter, OPTIONS))
    for name, pair in gradient(adapter, base).items():
        g = OPTIONS.scale * np.asarray(full["layers"][name])
        np.testing.assert_allclose(pair["a"], adapter[name]["b"].swapaxes(1, 2) @ g, atol=1e-5)
        np.testing.assert_allclose(pair["b"], g @ adapter[name]["a"].swapaxes(1, 2), atol=1e-5)


def test_recomputation_changes_no_gradient(base):
    adapter = noisy(4)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6),
        gradient(adapter, base),
        gradient(adapter, base, "full"),
    )


def test_a_mesh_changes_no_logit_and_no_gradient_and_cuts_adapters_like_their_matrices(base):
    each = [noisy(1), noisy(2)]
    rows = np.int32([1, 0, -1, 1, 0, 0, 1, -1])
    tokens = np.concatenate([TOKENS, TOKENS[::-1]])
    expected = logits(adapters.attach_several(base, adapters.stack(each), rows, OPTIONS), CONFIG, tokens)
    expected_gradient = gradient(each[0], base)
    expected_merge = adapters.merge(base, each[0], OPTIONS)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(base, params.shardings(CONFIG, mesh))
        where = adapters.shardings(CONFIG, OPTIONS, mesh)
        each = [jax.device_put(adapter, where) for adapter in each]
        fresh = adapters.initialise(CONFIG, OPTIONS, jax.random.key(0), mesh)
        assert jax.tree.map(lambda x: x.sharding, fresh) == where
        cut = logits(adapters.attach_several(placed, adapters.stack(each), rows, OPTIONS), CONFIG, tokens)
        cut_gradient = gradient(each[0], placed, "dots")
        merged = adapters.merge(placed, each[0], OPTIONS)
    np.testing.assert_allclose(cut, expected, atol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), cut_gradient, expected_gradient)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), merged, expected_merge)
    same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), merged, params.shardings(CONFIG, mesh))
    assert jax.tree.all(same)


def test_bfloat16_weights_keep_their_dtype_and_the_adapter_its_own(base):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), base)
    adapter = noisy(1, config)
    merged = adapters.merge(half, adapter, OPTIONS)
    assert {w.dtype for w in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}
    exact = half["layers"]["q"].astype(jnp.float32) + 1.5 * adapter["q"]["b"] @ adapter["q"]["a"]
    np.testing.assert_allclose(np.float32(merged["layers"]["q"]), exact, rtol=2**-8)
    one, two = (logits(w, config, TOKENS) for w in (adapters.attach(half, adapter, OPTIONS), merged))
    assert float(jnp.std(one - two)) < 0.05 * float(jnp.std(two))
    slope = jax.eval_shape(
        jax.grad(lambda a: jnp.sum(logits(adapters.attach(half, a, OPTIONS), config, TOKENS))), adapter
    )
    assert slope == adapters.abstract(config, OPTIONS)


def test_only_targeted_matrices_are_touched(base):
    options = dataclasses.replace(OPTIONS, targets="[qv]|up")
    assert adapters.target_names(CONFIG, options) == ("q", "v", "up")
    adapter = noisy(1, options=options)
    merged = adapters.merge(base, adapter, options)
    changed = {name for name, w in merged["layers"].items() if (w != base["layers"][name]).any()}
    assert changed == {"q", "v", "up"}
    assert adapters.count(CONFIG, options) == 2 * 4 * ((32 + 32) + (32 + 16) + (32 + 48))
    assert adapters.count(CONFIG, options) == sum(x.size for x in jax.tree.leaves(adapter))


def test_a_fresh_adapter_is_drawn_as_peft_draws_it():
    adapter = adapters.initialise(CONFIG, dataclasses.replace(OPTIONS, rank=64), jax.random.key(0))
    for name, inputs in (("q", 32), ("down", 48)):
        a = np.asarray(adapter[name]["a"])
        assert np.abs(a).max() == pytest.approx(inputs**-0.5, rel=0.01)  # Kaiming's bound with slope sqrt(5)
        assert a.std() == pytest.approx((3 * inputs) ** -0.5, rel=0.05)
        assert (a[0] != a[1]).any()
    with count_compilations() as compilations:
        adapters.initialise(CONFIG, dataclasses.replace(OPTIONS, rank=64), jax.random.key(1))
    assert compilations.count == 0


def test_rules_and_numbers_that_cannot_be_meant_are_refused_by_name(base):
    with pytest.raises(ValueError, match=r"lora.targets 'q_proj' matches nothing.*q\|k\|v"):
        adapters.target_names(CONFIG, LoraOptions(targets="q_proj"))
    with pytest.raises(ValueError, match=r"matches mlp_norm, q_norm, which cannot be adapted"):
        adapters.target_names(CONFIG, LoraOptions(targets="q.*|mlp.*"))
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"targets": "q|("}):
        with pytest.raises(ValueError, match=f"lora.{next(iter(wrong))}"):
            LoraOptions(**wrong)
    with pytest.raises(ValueError, match=r"adapter of .* has rank 4, lora.rank is 8"):
        adapters.attach(base, noisy(1), LoraOptions(rank=8))


def test_an_experts_matrices_cannot_be_adapted_but_its_attention_can():
    with pytest.raises(ValueError, match=r"matches gate, up, down, which cannot be adapted.*maps: q\|k\|v\|o$"):
        adapters.target_names(tiny.QWEN3_MOE, OPTIONS)
    with pytest.raises(ValueError, match=r"matches router"):
        adapters.target_names(tiny.QWEN3_MOE, LoraOptions(targets="router"))
    assert adapters.target_names(tiny.QWEN3_MOE, LoraOptions(targets="[qkvo]")) == ("q", "k", "v", "o")


def test_where_products_are_kept_for_the_backward_pass_an_adapters_wide_one_is_not(capsys):
    def layer(x, weight, a, b):
        return jnp.sum(jnp.sin(model.linear(x, adapters.Adapted(weight, a, b, None, 2.0), None)))

    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    arrays = [jnp.ones(shape) for shape in ((2, 8, 32), (48, 32), (1, 4, 32), (1, 48, 4))]
    print_saved_residuals(jax.checkpoint(layer, policy=dots), *arrays)
    kept = capsys.readouterr().out
    assert kept.count("[2,8,48]") == 1
    assert kept.count("[2,8,1,4]") == 1
