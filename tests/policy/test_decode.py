import jax
import numpy as np
import pytest

from metaagentx.policy import adapters, decode, model, params
from metaagentx.policy import prefill as prefilling
from metaagentx.policy.cache import empty_cache
from metaagentx.policy.config import LoraOptions
from tests.policy import tiny

prefill = jax.jit(prefilling.prefill, static_argnums=(1, 2))
forward = jax.jit(model.forward, static_argnums=1)
decode_step = jax.jit(decode.decode_step, static_argnums=(1, 2, 6))
LENGTHS = np.int32([3, 5, 7])
BUCKET, CAPACITY, STEPS = 8, 13, 4


def sequences(vocabulary: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary, (len(LENGTHS), 12)).astype(np.int32)


SLOW = ("llama", "llama3", "yarn", "tied", "qk_norm")  # what sets these apart, the others have too


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in tiny.CONFIGS])
def test_prefill_and_decode_equal_forward(name):
    config = tiny.CONFIGS[name]
    weights = params.initialise(config, jax.random.key(0))
    tokens = sequences(config.vocab_size)
    rows = np.arange(len(LENGTHS))
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    hidden = forward(weights, config, tokens, positions, np.ones_like(tokens))
    expected = model.unembed(weights, config, hidden)

    # Beyond each prompt lie the tokens to come: prefill must not see them.
    logits, fresh = prefill(weights, config, "dense", tokens[:, :BUCKET], LENGTHS)
    np.testing.assert_allclose(logits, expected[rows, LENGTHS - 1], atol=1e-5)

    # What was never written must never be read: it is large enough to be seen.
    stale = jax.tree.map(lambda x: x + 1e4, empty_cache(config, "dense", len(LENGTHS), CAPACITY))
    cache = jax.tree.map(lambda x, part: x.at[:, :, :BUCKET].set(part), stale, fresh)
    for step in range(STEPS):
        at = LENGTHS + step
        logits, cache = decode_step(weights, config, "dense", cache, tokens[rows, at], at, CAPACITY)
        np.testing.assert_allclose(logits, expected[rows, at], atol=1e-5)


def test_a_slot_does_not_see_its_neighbours():
    config = tiny.config()
    weights = params.initialise(config, jax.random.key(0))
    empty = empty_cache(config, "dense", 3, CAPACITY)
    full = jax.tree.map(lambda x: x.at[1:].set(3.0), empty)
    one, _ = decode_step(weights, config, "dense", empty, np.int32([1, 2, 3]), np.int32([0, 4, 5]), CAPACITY)
    two, _ = decode_step(weights, config, "dense", full, np.int32([1, 8, 9]), np.int32([0, 9, 2]), CAPACITY)
    np.testing.assert_array_equal(one[0], two[0])
    assert (one[1:] != two[1:]).any()


def test_a_step_writes_one_position_of_each_slot():
    config = tiny.config()
    weights = params.initialise(config, jax.random.key(0))
    before = jax.tree.map(lambda x: x + 7, empty_cache(config, "dense", 2, CAPACITY))
    positions = np.int32([2, CAPACITY - 1])
    _, after = decode_step(weights, config, "dense", before, np.int32([1, 2]), positions, CAPACITY)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        written = np.argwhere((np.asarray(old) != np.asarray(new)).any(axis=(1, 3)))
        np.testing.assert_array_equal(written, np.stack([np.arange(2), positions], axis=1))


def step(weights, config, tokens):
    cache = empty_cache(config, "dense", len(tokens), CAPACITY)
    return decode_step(weights, config, "dense", cache, tokens, np.int32([0, 4, 5]), CAPACITY)[0]


def test_separate_layers_decode_as_stacked_ones_with_an_adapter_of_each_slot_too():
    config, options = tiny.config(), LoraOptions(rank=2, alpha=4.0)
    weights, tokens = params.initialise(config, jax.random.key(0)), np.int32([1, 2, 3])
    separate = decode.separate(weights, config)
    assert separate["embed"] is weights["embed"]
    np.testing.assert_allclose(step(separate, config, tokens), step(weights, config, tokens), atol=1e-6)

    adapter = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), adapters.abstract(config, options))
    several, rows = adapters.stack([adapter, jax.tree.map(lambda x: 2 * x, adapter)]), np.int32([-1, 0, 1])
    one, other = (step(adapters.attach_several(w, several, rows, options), config, tokens) for w in (weights, separate))
    np.testing.assert_allclose(other, one, atol=1e-5)
    changed = np.abs(one - step(weights, config, tokens)).max(axis=-1)
    assert changed[0] < 1e-5
    assert changed[1:].min() > 0.1
