from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metaagentx.rollout.draw import BLOCK, HEAD, Knobs, call_keys, draw, pick, truncate
from metaagentx.rollout.options import SamplingOptions

COUNT = 20_000
LOGITS = np.array([0.0, 1.0, -1.0, 2.0, -np.inf, 0.5], np.float32)
PLACES = np.arange(COUNT)
KEYS = jax.random.split(jax.random.key(1), COUNT)
draw_many = jax.jit(draw, static_argnums=5)
truncate_many = jax.jit(truncate)
PLAIN = SamplingOptions()


def knobs(sampling, rows=COUNT, bias=0):
    return Knobs.of([sampling] * rows, [bias] * rows, rows)


def same(logits, rows=COUNT):
    return jnp.broadcast_to(logits, (rows, len(logits)))


def softmax(x):
    mass = np.exp(np.asarray(x, np.float64) - np.max(x))
    return mass / mass.sum()


def assert_frequencies(tokens, expected):
    """Chi-square at its 99.9 % quantile, of 1 to 9 degrees of freedom; what has no mass is never drawn."""
    observed = np.bincount(tokens, minlength=len(expected))
    assert not observed[expected == 0].any()
    live = expected > 0
    counts = expected[live] * len(tokens)
    quantile = (0.0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88)[live.sum() - 1]
    assert np.sum((observed[live] - counts) ** 2 / counts) < max(quantile, 1e-9)


def reachable(mass, top_k, top_p):
    """Which tokens top-k and then top-p keep, by their definition; equal masses stay or go together."""
    mass = np.asarray(mass, np.float64)
    order = np.sort(mass)[::-1]
    keep = mass >= order[min(top_k or len(mass), len(mass)) - 1]
    if top_p < 1:
        falling = np.sort(np.where(keep, mass, 0))[::-1]
        reached = np.flatnonzero(np.cumsum(falling) >= top_p * falling.sum())[0]
        keep &= mass >= falling[reached]
    return keep


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_match_probabilities(temperature):
    sampling = SamplingOptions(temperature=temperature)
    tokens, logprobs, kept = draw_many(same(LOGITS), knobs(sampling), KEYS, PLACES, None, False)
    assert_frequencies(tokens, softmax(LOGITS / temperature))
    np.testing.assert_allclose(logprobs, np.log(softmax(LOGITS)[np.asarray(tokens)]), rtol=1e-5)
    assert kept is None


def test_temperature_zero_takes_the_first_of_the_most_likely_tokens():
    logits = np.array([0.0, 2.0, -1.0, 2.0, 1.9999], np.float32)
    tokens, _, _ = draw_many(same(logits), knobs(SamplingOptions(temperature=0.0)), KEYS, PLACES, None, False)
    assert set(tokens.tolist()) == {1}


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingOptions(top_k=3),
        SamplingOptions(top_p=0.8),
        SamplingOptions(top_k=4, top_p=0.7),
        SamplingOptions(temperature=2.0, top_k=4, top_p=0.7),
        SamplingOptions(temperature=0.5, top_p=0.9),
        SamplingOptions(top_k=100),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_frequencies_match_what_is_left_renormalised(sampling, biased):
    added = np.array([1.0, -np.inf, 0.0, -0.5, 0.0, 0.0], np.float32) if biased else np.zeros(6, np.float32)
    table = np.stack([np.zeros(6, np.float32), added]) if biased else None
    given = knobs(sampling, bias=int(biased))
    tokens, logprobs, kept = draw_many(same(LOGITS), given, KEYS, PLACES, table, True)
    drawn = softmax((LOGITS + added) / sampling.temperature)
    drawn = np.where(reachable(drawn, sampling.top_k, sampling.top_p), drawn, 0)
    drawn /= drawn.sum()
    assert_frequencies(tokens, drawn)
    plain, tokens = softmax(LOGITS), np.asarray(tokens)
    np.testing.assert_allclose(logprobs, np.log(plain[tokens]), rtol=1e-5)
    np.testing.assert_allclose(kept, np.log(plain[tokens] / drawn[tokens]), atol=2e-6)
    # The mean of exp(kept) is the plain mass of what can be drawn, whatever it is drawn with: within five errors.
    mass, spread = plain[drawn > 0].sum(), np.exp(kept).std() / np.sqrt(COUNT)
    assert abs(np.exp(np.asarray(kept, np.float64)).mean() - mass) < 5 * spread + 1e-5


@settings(max_examples=300, deadline=None)
@given(
    arrays.arrays(np.float32, 300, elements=st.floats(-30, 30, width=32)),
    st.integers(0, 310),
    st.floats(0.0078125, 1, width=32),
)
@example(np.zeros(300, np.float32), 5, 0.5)  # all are equal: all stay
@example(np.arange(300, dtype=np.float32) / 100, 200, 0.9)  # both end behind the head
@example(np.arange(300, dtype=np.float32) / 100, 0, 1.0)
def test_truncation_is_that_of_the_definition(logits, top_k, top_p):
    mass = np.exp(logits - logits.max())
    found = np.asarray(truncate_many(mass[None], np.array([top_k]), np.array([top_p], np.float32)))[0]
    # A sum may be rounded to either side of top_p.
    near = [reachable(mass, top_k, min(top_p * scale, 1.0)) for scale in (1 - 1e-5, 1 + 1e-5)]
    keep = found > 0
    assert (near[0] & (mass > 0) <= keep).all()
    assert (keep <= near[1]).all()
    np.testing.assert_array_equal(found[keep], mass[keep])


@pytest.mark.parametrize("vocabulary", [6, BLOCK, BLOCK + 1, 5 * BLOCK - 3])
def test_a_row_does_not_depend_on_its_batch(vocabulary):
    """Rows whose truncation ends within the head and behind it, off, biased and greedy: bit for bit as alone."""
    rng = np.random.default_rng(0)
    rows = 12
    logits = jnp.asarray(rng.normal(size=(rows, vocabulary)) * rng.uniform(0.1, 5, (rows, 1)), jnp.float32)
    several = [
        PLAIN,
        SamplingOptions(top_k=2),
        SamplingOptions(top_k=HEAD + 20, top_p=0.9),
        SamplingOptions(top_p=0.97),
        SamplingOptions(0.0),
        SamplingOptions(0.7, top_k=9, top_p=0.5),
    ] * 2
    table = np.where(rng.random((3, vocabulary)) < 0.3, -np.inf, 0).astype(np.float32)
    table[0], table[:, 0] = 0, 0
    bias = [row % 3 for row in range(rows)]
    keys, places = KEYS[:rows], PLACES[:rows]
    together = draw_many(logits, Knobs.of(several, bias, rows), keys, places, table, True)
    for row in range(rows):
        # Plain neighbours with other logits: no search behind the head unless for this row.
        others = jnp.roll(logits, 3, axis=0).at[row].set(logits[row])
        plain = [PLAIN] * row + [several[row]] + [PLAIN] * (rows - row - 1)
        alone = draw_many(others, Knobs.of(plain, bias, rows), keys, places, table, True)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_array_equal(a[row], b[row])


def test_rows_without_truncation_draw_the_same_whether_others_may_have_it():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(64, 3000)) * 3, jnp.float32)
    given = knobs(PLAIN, 64)
    plain = draw_many(logits, given, KEYS[:64], PLACES[:64], None, False)
    other = draw_many(logits, given, KEYS[:64], PLACES[:64], np.zeros((2, 3000), np.float32), True)
    np.testing.assert_array_equal(plain[0], other[0])
    np.testing.assert_array_equal(plain[1], other[1])
    np.testing.assert_allclose(other[2], 0, atol=2e-6)


def test_every_token_of_a_large_vocabulary_is_drawn_at_its_own_share():
    """At the middle of each token's share of [0, 1), through every block, the token itself; none without mass."""
    rng = np.random.default_rng(0)
    mass = np.where(rng.random(1000) < 0.5, 0, rng.random(1000) + 0.1).astype(np.float32)
    live = np.flatnonzero(mass)
    ends = np.cumsum(mass.astype(np.float64)) / mass.astype(np.float64).sum()
    middle = (ends - mass / mass.astype(np.float64).sum() / 2)[live]
    tokens, total = pick(same(mass, len(live)), jnp.asarray(middle, jnp.float32))
    np.testing.assert_array_equal(tokens, live)
    np.testing.assert_allclose(total, mass.sum(dtype=np.float64), rtol=1e-6)
    extremes = np.array([0.0, 1 - 2.0**-23, 1 - 2.0**-24], np.float32)
    np.testing.assert_array_equal(pick(same(mass, 3), extremes)[0], [live[0], live[-1], live[-1]])


def test_positions_of_one_call_draw_independently():
    keys = jnp.broadcast_to(jax.random.key(5), COUNT)
    halves = np.where(np.arange(6) < 2, 0.0, -np.inf).astype(np.float32)
    tokens, *_ = draw_many(same(halves), knobs(PLAIN), keys, PLACES, None, False)
    pairs = np.bincount(np.asarray(tokens[:-1]) * 2 + np.asarray(tokens[1:]), minlength=4)
    # Five standard errors.
    np.testing.assert_allclose(pairs / (COUNT - 1), 0.25, atol=5 * np.sqrt(0.25 * 0.75 / COUNT))


def test_distinct_calls_never_share_a_key():
    ids = np.array(list(itertools.product((0, 1), (0, 1), (0, 1), (0, 1), (2**32 - 1, 0, 1), range(20))), np.uint32)
    keys = np.asarray(jax.random.key_data(jax.jit(call_keys)(ids)))
    assert len(np.unique(keys, axis=0)) == len(ids)


def test_knobs_beyond_the_calls_are_plain():
    found = Knobs.of([dataclasses.replace(PLAIN, temperature=0.5, top_k=3, top_p=0.9)], [2], 3)
    assert [found.temperature.tolist(), found.top_k.tolist(), found.bias.tolist()] == [
        [0.5, 1, 1],
        [3, 0, 0],
        [2, 0, 0],
    ]
    np.testing.assert_allclose(found.top_p, [0.9, 1, 1], rtol=1e-6)
