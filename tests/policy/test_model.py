import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.policy import model, params
from tests.policy import reference, tiny

forward = jax.jit(model.forward, static_argnums=(1, 5))
ROWS, LENGTH = 2, 12


@pytest.fixture(scope="module")
def weights():
    return params.initialise(tiny.config(), jax.random.key(0))


def ids(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, tiny.config().vocab_size, shape).astype(np.int32)


def packed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions, segments: rows of two conversations, of 5 and 4 tokens, and padding."""
    segments = np.tile(np.int32([1] * 5 + [2] * 4 + [0] * 3), (ROWS, 1))
    positions = np.tile(np.int32([*range(5), *range(4), 0, 0, 0]), (ROWS, 1))
    return ids(1, ROWS, LENGTH), positions, segments


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_forward_equals_the_float64_reference(name):
    config = tiny.CONFIGS[name]
    weights = params.initialise(config, jax.random.key(2))
    # Scales away from their initial 1 and biases from 0, so that none can be left out.
    scales = jax.tree.map(
        lambda w: np.broadcast_to(np.linspace(0.5, 1.5, w.shape[-1], dtype=np.float32), w.shape), weights
    )
    weights = jax.tree.map(lambda w, s: jnp.where(w == 0, s, w * s), weights, scales)
    tokens = ids(3, 1, 2 * LENGTH)  # beyond the original context of those that are stretched
    positions = np.arange(2 * LENGTH, dtype=np.int32)[None]
    hidden = forward(weights, config, tokens, positions, np.ones_like(tokens))
    expected = reference.logits(weights, config, tokens[0])
    np.testing.assert_allclose(model.unembed(weights, config, hidden)[0], expected, atol=2e-5, rtol=1e-5)


def test_a_packed_conversation_equals_the_conversation_alone(weights):
    config = tiny.config()
    tokens, positions, segments = packed()
    hidden = forward(weights, config, tokens, positions, segments)
    for start, stop in ((0, 5), (5, 9)):
        alone = tokens[:, start:stop]
        expected = forward(weights, config, alone, positions[:, start:stop], np.ones_like(alone))
        np.testing.assert_allclose(hidden[:, start:stop], expected, atol=1e-5)


def test_padding_ids_change_no_bit_of_real_tokens(weights):
    tokens, positions, segments = packed()
    other = np.where(segments == 0, ids(5, ROWS, LENGTH), tokens)
    assert (other != tokens).any()
    one, two = (forward(weights, tiny.config(), t, positions, segments) for t in (tokens, other))
    np.testing.assert_array_equal(one[segments > 0], two[segments > 0])


def test_a_later_token_changes_no_bit_of_earlier_ones(weights):
    tokens, positions, segments = packed()
    other = tokens.copy()
    other[:, 3] = (tokens[:, 3] + 1) % tiny.config().vocab_size
    one, two = (np.asarray(forward(weights, tiny.config(), t, positions, segments)) for t in (tokens, other))
    np.testing.assert_array_equal(one[:, :3], two[:, :3])
    np.testing.assert_array_equal(one[:, 5:9], two[:, 5:9])
    assert (one[:, 3:5] != two[:, 3:5]).any()


def test_order_comes_from_positions_not_from_the_place_in_the_row(weights):
    tokens, positions, segments = packed()
    order = np.random.default_rng(6).permutation(LENGTH)
    one = forward(weights, tiny.config(), tokens, positions, segments)
    two = forward(weights, tiny.config(), tokens[:, order], positions[:, order], segments[:, order])
    real = segments[0, order] > 0
    np.testing.assert_allclose(np.asarray(one)[:, order][:, real], np.asarray(two)[:, real], atol=1e-5)


def test_remat_changes_no_gradient(weights):
    tokens, positions, segments = packed()

    def loss(weights, remat):
        hidden = model.forward(weights, tiny.config(), tokens, positions, segments, remat)
        return jnp.mean(jnp.square(hidden) * hidden * (segments > 0)[:, :, None])

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(weights, "none"), gradient(weights, "full")
    )


def test_bfloat16_weights_give_finite_bfloat16_states_and_float32_logits():
    config = tiny.config(dtype="bfloat16")
    weights = params.initialise(config, jax.random.key(0))
    hidden = forward(weights, config, *packed())
    assert hidden.dtype == jnp.bfloat16
    logits = model.unembed(weights, config, hidden)
    assert logits.dtype == jnp.float32
    assert bool(jnp.isfinite(logits).all())
