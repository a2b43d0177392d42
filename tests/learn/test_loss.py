"""Claims about the loss pieces, against exact values on a distribution of five tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.learn import loss

LOGITS = jnp.array([0.5, -0.3, 1.2, 0.0, -1.0])
REFERENCE = jax.nn.log_softmax(jnp.array([0.1, 0.4, 0.2, -0.7, 0.3]))


def expectation(logits: jax.Array, values: jax.Array) -> jax.Array:
    """Mean of per-token values over the distribution, which itself carries no gradient (samples do not)."""
    return jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(logits)) * values)


def exact_kl(logits: jax.Array) -> jax.Array:
    logp = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(logp) * (logp - REFERENCE))


def reverse_kl(logits: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(REFERENCE) * (REFERENCE - jax.nn.log_softmax(logits)))


def estimated(name: str):
    return lambda logits: expectation(logits, loss.ESTIMATORS[name](jax.nn.log_softmax(logits), REFERENCE))


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_have_the_exact_kl_as_expected_value(name: str) -> None:
    np.testing.assert_allclose(estimated(name)(LOGITS), exact_kl(LOGITS), rtol=1e-5)


def test_k2_is_biased_but_close_for_close_distributions() -> None:
    assert abs(float(estimated("k2")(LOGITS) - exact_kl(LOGITS))) > 1e-3
    near = REFERENCE + 0.01 * LOGITS
    np.testing.assert_allclose(estimated("k2")(near), exact_kl(near), rtol=0.05)


def test_gradient_of_k1_vanishes_that_of_k2_is_right_and_that_of_k3_is_the_other_direction() -> None:
    np.testing.assert_allclose(jax.grad(estimated("k1"))(LOGITS), np.zeros(5), atol=1e-6)
    np.testing.assert_allclose(jax.grad(estimated("k2"))(LOGITS), jax.grad(exact_kl)(LOGITS), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jax.grad(estimated("k3"))(LOGITS), jax.grad(reverse_kl)(LOGITS), rtol=1e-4, atol=1e-6)


def test_k3_is_never_negative_where_the_others_lose_precision() -> None:
    logp = jnp.float32(-2.0) + jnp.linspace(-1e-4, 1e-4, 101)
    assert np.all(np.asarray(loss.k3(logp, jnp.full(101, -2.0))) >= 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "bound"),
    [
        (1.0, 2.0, 2.0, False),
        (1.5, 2.0, 1.28 * 2.0, True),  # no more gain above 1 + high
        (1.5, -2.0, -3.0, False),  # but the whole loss
        (0.5, 2.0, 1.0, False),
        (0.5, -2.0, -0.8 * 2.0, True),
    ],
)
def test_surrogate_is_bounded_on_the_side_of_gain_only(
    ratio: float, advantage: float, value: float, bound: bool
) -> None:
    r, a = jnp.array([ratio]), jnp.array([advantage])
    np.testing.assert_allclose(loss.surrogate(r, a, 0.2, 0.28), [value], rtol=1e-6)
    slope = jax.grad(lambda r: loss.surrogate(r, a, 0.2, 0.28)[0])(r)
    assert bool(loss.clipped(r, a, 0.2, 0.28)[0]) == bound == (float(slope[0]) == 0)


def test_sequence_ratio_is_the_geometric_mean_over_the_loss_tokens_of_each_segment() -> None:
    rng = np.random.default_rng(0)
    logp, old = rng.normal(size=(2, 3, 12)).astype(np.float32)
    segments = np.array([[1] * 5 + [2] * 7, [1] * 4 + [2] * 4 + [3] * 2 + [0] * 2, [1] * 12], np.int32)
    mask = (rng.random((3, 12)) < 0.6) & (segments > 0)
    found = np.asarray(loss.sequence_ratio(jnp.array(logp), jnp.array(old), jnp.array(mask), jnp.array(segments)))
    for row in range(3):
        for segment in range(1, 4):
            chosen = mask[row] & (segments[row] == segment)
            if chosen.any():
                expected = np.prod(np.exp(logp - old)[row][chosen]) ** (1 / chosen.sum())
                np.testing.assert_allclose(found[row][chosen], expected, rtol=1e-5)


def test_importance_weight_is_truncated_and_has_no_gradient() -> None:
    logp, sampler = jnp.log(jnp.array([0.5, 0.2, 0.9])), jnp.log(jnp.array([0.25, 0.4, 0.1]))
    np.testing.assert_allclose(loss.importance_weight(logp, sampler, 3.0), [2.0, 0.5, 3.0], rtol=1e-5)
    np.testing.assert_array_equal(loss.importance_weight(logp, sampler, 0.0), np.ones(3))
    np.testing.assert_array_equal(jax.grad(lambda x: loss.importance_weight(x, sampler, 3.0).sum())(logp), np.zeros(3))
