from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.rollout.draw import call_keys, draw

LOGITS = jnp.array([0.0, 1.0, -1.0, 2.0, -jnp.inf, 0.5])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_match_probabilities(temperature):
    count = 20_000
    keys = jax.random.split(jax.random.key(1), count)
    logits = jnp.broadcast_to(LOGITS, (count, 6))
    tokens, logprobs = jax.jit(draw)(logits, jnp.full(count, temperature), keys, jnp.arange(count))
    expected = count * np.asarray(jax.nn.softmax(LOGITS / temperature))
    observed = np.bincount(tokens, minlength=6)
    assert observed[4] == 0
    kept = expected > 0
    # 99.9 % quantile of chi-square with 4 degrees of freedom.
    assert np.sum((observed - expected)[kept] ** 2 / expected[kept]) < 18.47
    np.testing.assert_allclose(logprobs, np.asarray(jax.nn.log_softmax(LOGITS))[np.asarray(tokens)], rtol=1e-6)


def test_temperature_zero_takes_the_most_likely_token():
    keys = jax.random.split(jax.random.key(1), 50)
    tokens, _ = draw(jnp.broadcast_to(LOGITS, (50, 6)), jnp.zeros(50), keys, jnp.arange(50))
    assert set(tokens.tolist()) == {3}


def test_positions_of_one_call_draw_independently():
    count = 4000
    keys = call_keys(jnp.zeros((count, 6), jnp.uint32))
    flat = jnp.zeros((count, 2))
    tokens, _ = draw(flat, jnp.ones(count), keys, jnp.arange(count))
    pairs = np.bincount(np.asarray(tokens[:-1]) * 2 + np.asarray(tokens[1:]), minlength=4)
    np.testing.assert_allclose(pairs / (count - 1), 0.25, atol=0.04)


def test_distinct_calls_never_share_a_key():
    ids = np.array(list(itertools.product((0, 1), (0, 1), (0, 1), (0, 1), (2**32 - 1, 0, 1), range(20))), np.uint32)
    keys = np.asarray(jax.random.key_data(jax.jit(call_keys)(ids)))
    assert len(np.unique(keys, axis=0)) == len(ids)
