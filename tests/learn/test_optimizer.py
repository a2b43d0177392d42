"""Claims about the optimisers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn.optimizer import layer_matrices, optimizer, schedule
from metaagentx.learn.options import OptimizerOptions
from metaagentx.policy.params import abstract
from tests.learn.examples import CONFIG


def draw(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.array(rng.normal(size=w.shape), jnp.float32), abstract(CONFIG))


def test_muon_takes_the_matrices_of_the_layers_and_nothing_else() -> None:
    chosen = jax.tree.map(lambda x: x is not None, layer_matrices(draw(0)), is_leaf=lambda x: not isinstance(x, dict))
    matrices = {name for name, taken in chosen["layers"].items() if taken}
    assert matrices == {"q", "k", "v", "o", "gate", "up", "down"}
    assert not chosen["embed"]
    assert not chosen["final_norm"]


def test_muon_orthogonalises_each_layer_on_its_own() -> None:
    rule = optimizer(OptimizerOptions(name="muon", learning_rate=1e-3, muon_learning_rate=1.0, clip_norm=0.0))
    params, gradient = draw(0), draw(1)
    # One layer's gradient a thousand times the other's: were they one matrix, the small one would vanish.
    gradient["layers"] = jax.tree.map(lambda g: g.at[0].multiply(1000.0), gradient["layers"])
    update, _ = jax.jit(rule.update)(gradient, rule.init(params), params)
    for name in ("q", "up", "down"):
        out, in_ = update["layers"][name].shape[1:]
        singular = np.linalg.svd(np.asarray(update["layers"][name]), compute_uv=False) / max(1, out / in_) ** 0.5
        assert np.all((singular > 0.5) & (singular < 1.5)), (name, singular)


def test_adamw_clips_by_the_global_norm() -> None:
    params, gradient = draw(0), draw(1)
    clipped, plain = (optimizer(OptimizerOptions(learning_rate=1.0, clip_norm=norm, eps=1.0)) for norm in (1.0, 0.0))
    found, _ = jax.jit(clipped.update)(gradient, clipped.init(params), params)
    length = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
    shorter = jax.tree.map(lambda g: g / length, gradient)
    expected, _ = jax.jit(plain.update)(shorter, plain.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), found, expected)


def test_learning_rate_warms_up_then_decays_to_zero() -> None:
    rate = schedule(OptimizerOptions(warmup_steps=4, decay_steps=10), 2.0)
    found = [float(rate(count)) for count in (0, 1, 3, 4, 9, 14, 20)]
    assert found == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.0, 0.0, 0.0])
    assert float(schedule(OptimizerOptions(), 2.0)(1000)) == 2.0
