from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.rollout.draw import call_keys, draw

COUNT = 20_000
LOGITS = jnp.array([0.0, 1.0, -1.0, 2.0, -jnp.inf, 0.5])
PLACES = jnp.arange(COUNT)
draw_many = jax.jit(draw)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_match_probabilities(temperature):
    keys = jax.random.split(jax.random.key(1), COUNT)
    tokens, logprobs = draw_many(jnp.broadcast_to(LOGITS, (COUNT, 6)), jnp.full(COUNT, temperature), keys, PLACES)
    expected = COUNT * np.asarray(jax.nn.softmax(LOGITS / temperature))
    observed = np.bincount(tokens, minlength=6)
    assert observed[4] == 0
    kept = expected > 0
    # 99.9 % quantile of chi-square with 4 degrees of freedom.
    assert np.sum((observed - expected)[kept] ** 2 / expected[kept]) < 18.47
    np.testing.assert_allclose(logprobs, np.asarray(jax.nn.log_softmax(LOGITS))[np.asarray(tokens)], rtol=1e-6)


def test_temperature_zero_takes_the_most_likely_token():
    keys = jax.random.split(jax.random.key(1), COUNT)
    tokens, _ = draw_many(jnp.broadcast_to(LOGITS, (COUNT, 6)), jnp.zeros(COUNT), keys, PLACES)
    assert set(tokens.tolist()) == {3}


def test_positions_of_one_call_draw_independently():
    keys = jnp.broadcast_to(jax.random.key(5), COUNT)
    halves = jnp.where(jnp.arange(6) < 2, 0.0, -jnp.inf)
    tokens, _ = draw_many(jnp.broadcast_to(halves, (COUNT, 6)), jnp.ones(COUNT), keys, PLACES)
    pairs = np.bincount(np.asarray(tokens[:-1]) * 2 + np.asarray(tokens[1:]), minlength=4)
    # Five standard errors.
    np.testing.assert_allclose(pairs / (COUNT - 1), 0.25, atol=5 * np.sqrt(0.25 * 0.75 / COUNT))


def test_distinct_calls_never_share_a_key():
    ids = np.array(list(itertools.product((0, 1), (0, 1), (0, 1), (0, 1), (2**32 - 1, 0, 1), range(20))), np.uint32)
    keys = np.asarray(jax.random.key_data(jax.jit(call_keys)(ids)))
    assert len(np.unique(keys, axis=0)) == len(ids)
