import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.policy import logprobs, model, params
from tests.policy import reference, tiny

ROWS, LENGTH, CHUNK = 3, 10, 4
CONFIG = tiny.config(tied=False)


@pytest.fixture(scope="module")
def case():
    weights = params.initialise(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(0)
    hidden = 2 * rng.standard_normal((ROWS, LENGTH, CONFIG.d_model)).astype(np.float32)
    targets = rng.integers(0, CONFIG.vocab_size, (ROWS, LENGTH)).astype(np.int32)
    return weights, hidden, targets


@pytest.mark.parametrize("chunk", [1, 4, 10, 64])
def test_chunks_of_any_size_give_the_log_softmax_and_its_entropy(case, chunk):
    weights, hidden, targets = case
    logprob, entropy = logprobs.token_logprobs(weights, CONFIG, hidden, targets, chunk, with_entropy=True)
    expected = reference.log_softmax(hidden.astype(np.float64) @ np.asarray(weights["head"], np.float64).T)
    np.testing.assert_allclose(logprob, np.take_along_axis(expected, targets[..., None], -1)[..., 0], atol=1e-5)
    np.testing.assert_allclose(entropy, -(np.exp(expected) * expected).sum(-1), atol=1e-5)


def test_gradients_equal_those_without_chunks(case):
    weights, hidden, targets = case

    def chunked(weights, hidden):
        logprob, entropy = logprobs.token_logprobs(weights, CONFIG, hidden, targets, CHUNK, with_entropy=True)
        return jnp.mean(logprob) + 0.1 * jnp.mean(entropy)

    def plain(weights, hidden):
        every = jax.nn.log_softmax(model.unembed(weights, CONFIG, hidden))
        logprob = jnp.take_along_axis(every, targets[..., None], axis=-1)
        return jnp.mean(logprob) - 0.1 * jnp.mean(jnp.sum(jnp.exp(every) * every, axis=-1))

    one, two = (jax.jit(jax.grad(f, argnums=(0, 1)))(weights, hidden) for f in (chunked, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)


def test_the_logits_of_a_whole_batch_never_exist_forward_or_backward(case):
    weights, hidden, targets = case

    def loss(weights, hidden, chunk):
        logprob, entropy = logprobs.token_logprobs(weights, CONFIG, hidden, targets, chunk, with_entropy=True)
        return jnp.sum(logprob) + jnp.sum(entropy)

    def largest(chunk):
        """Elements of the largest array with a vocabulary axis in the compiled program, the weights aside."""
        program = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2).lower(weights, hidden, chunk).compile()
        shapes = [tuple(map(int, s.split(","))) for s in re.findall(r"\w+\[([\d,]+)\]", program.as_text())]
        weight = CONFIG.vocab_size, CONFIG.d_model
        return max(np.prod(s) for s in shapes if CONFIG.vocab_size in s and not set(weight) <= set(s))

    assert largest(CHUNK) <= ROWS * CHUNK * CONFIG.vocab_size
    assert largest(LENGTH) == ROWS * LENGTH * CONFIG.vocab_size  # the measure sees the array where it is


def test_without_entropy_it_is_zero_and_log_probabilities_stay(case):
    weights, hidden, targets = case
    with_, without = (logprobs.token_logprobs(weights, CONFIG, hidden, targets, CHUNK, e) for e in (True, False))
    np.testing.assert_allclose(with_[0], without[0], atol=1e-6)
    assert not without[1].any()


def test_a_chunk_below_one_is_refused_by_name(case):
    weights, hidden, targets = case
    with pytest.raises(ValueError, match="chunk"):
        logprobs.token_logprobs(weights, CONFIG, hidden, targets, 0, with_entropy=False)


@pytest.mark.parametrize("tied", [pytest.param(True, marks=pytest.mark.slow), False])
def test_gradients_of_the_vocabulary_are_summed_in_float32(tied):
    """However many chunks there are and however often a token occurs: the rest is the rounding of activations."""
    config = tiny.config(tied=tied, layers=1)
    narrow = dataclasses.replace(config, dtype="bfloat16")
    weights, length = params.initialise(narrow, jax.random.key(0)), 128
    rng = np.random.default_rng(0)
    tokens = np.minimum(rng.zipf(1.3, (4, length)) - 1, config.vocab_size - 1).astype(np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32) % 32, tokens.shape)
    segments = np.broadcast_to(np.arange(length, dtype=np.int32) // 32, tokens.shape)
    gains = rng.standard_normal(tokens.shape)

    @functools.partial(jax.jit, static_argnums=(1, 2))
    @jax.grad
    def gradient(weights, config, prepare):
        weights = prepare(weights)
        hidden = model.forward(weights, config, tokens, positions, segments)
        logprob, _ = logprobs.token_logprobs(weights, config, hidden, np.roll(tokens, -1, 1), 1, with_entropy=False)
        return jnp.mean(gains * logprob)

    exact = gradient(jax.tree.map(lambda w: w.astype(jnp.float32), weights), config, dict)
    found, poor = (gradient(weights, narrow, prepare) for prepare in (logprobs.wide_vocabulary, dict))
    for name in ("embed",) if tied else ("embed", "head"):

        def error(tree, name=name):
            return float(jnp.linalg.norm(tree[name] - exact[name]) / jnp.linalg.norm(exact[name]))

        assert error(found) < 0.015
        assert error(found) < 0.6 * error(poor)


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_what_is_wanted_is_the_same_as_of_all_and_so_are_its_gradients(case, share):
    weights, hidden, targets = case
    wanted = np.random.default_rng(1).random((ROWS, LENGTH)) < share

    def loss(weights, hidden, wanted_alone):
        found = logprobs.token_logprobs(weights, CONFIG, hidden, targets, 2, True, wanted if wanted_alone else None)
        return sum(jnp.sum(jnp.where(wanted, x, 0)) for x in found), found

    graded = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    (one, few), (two, every) = (graded(weights, hidden, alone) for alone in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)
    for a, b in zip(few, every, strict=True):
        np.testing.assert_allclose(a[wanted], b[wanted], atol=1e-6)
