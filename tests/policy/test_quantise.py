"""Weights in 8 bits: near the real ones, exact in what they sum, and sampled with by an engine that is asked to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters, decode, params, quantise
from metaagentx.policy.cache import empty_cache
from metaagentx.policy.config import LINEAR, LoraOptions
from metaagentx.policy.model import forward
from tests.policy import tiny


def test_a_weight_is_off_by_at_most_half_a_step_of_its_row():
    x = jax.random.normal(jax.random.key(0), (3, 5, 7)) * jnp.arange(5)[None, :, None]  # a row of zeros too
    found = quantise.quantise(x)
    error = np.abs(found.weight * found.scale[..., None] - x)
    assert found.weight.dtype == jnp.int8
    assert (error <= np.abs(x).max(axis=-1, keepdims=True) / 127 / 2 * 1.0001).all()


@pytest.mark.parametrize("shape", [(1, 64), (1, 1, 64), (4, 64), (2, 3, 64)])
def test_a_product_is_that_of_rounded_weights_and_16_bits_of_each_token(shape):
    x, w = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), (48, 64))
    x = x.at[..., 0].mul(1000)  # what would leave the others three bits
    rounded = quantise.quantise(w)
    weights = rounded.weight * np.float64(rounded.scale)[:, None]
    found = quantise.product(x, rounded, None)
    bound = np.abs(x).max(axis=-1, keepdims=True) / 127 / 254 / 2 * np.abs(weights).sum(axis=1)
    assert (np.abs(found - np.float64(x) @ weights.T) <= bound * 1.01).all()
    rows = [quantise.product(row[None], rounded, None)[0] for row in x]
    np.testing.assert_array_equal(found, rows)  # whatever else is in the batch


@pytest.mark.parametrize("name", ["qwen2", "qwen3_moe"])
def test_every_matrix_but_the_embedding_and_experts_is_in_eight_bits(name):
    config = tiny.FAMILIES[name]
    weights = params.initialise(config, jax.random.key(0))
    found = quantise.in_eight_bits(config, weights)
    names = {key for key, leaf in found["layers"].items() if isinstance(leaf, quantise.Int8)}
    assert names == set(LINEAR if config.experts is None else LINEAR[:4])
    assert isinstance(found["head"], quantise.Int8)
    assert found["embed"].dtype == weights["embed"].dtype
    exact, near = (jax.nn.softmax(step(w, config)) for w in (weights, found))
    assert 0 < np.abs(near - exact).sum(axis=-1).max() < 0.1


def test_adapters_are_added_to_weights_in_eight_bits():
    config, options = tiny.config(), LoraOptions(rank=2, alpha=4.0)
    base = params.initialise(config, jax.random.key(0))
    adapter = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), adapters.abstract(config, options))
    several, rows = adapters.stack([adapter]), np.int32([-1, 0, 0])
    exact, near = (
        jax.nn.softmax(step(adapters.attach_several(w, several, rows, options), config))
        for w in (base, decode.separate(quantise.in_eight_bits(config, base), config))
    )
    assert np.abs(near - exact).sum(axis=-1).max() < 0.1
    assert np.abs(exact[1] - jax.nn.softmax(step(base, config))[1]).sum() > 0.5


def step(weights, config):
    cache = empty_cache(config, "dense", 3, 6)
    program = jax.jit(decode.decode_step, static_argnums=(1, 2, 6))
    return program(weights, config, "dense", cache, np.int32([1, 2, 3]), np.int32([0, 4, 5]), 6)[0]


def test_on_a_mesh_products_are_the_same():
    config = tiny.config()
    tokens = np.arange(16, dtype=np.int32).reshape(8, 2)
    positions, segments = np.tile(np.arange(2, dtype=np.int32), (8, 1)), np.ones_like(tokens)

    def hidden(weights):
        return forward(quantise.in_eight_bits(config, weights), config, tokens, positions, segments)

    alone = jax.jit(hidden)(params.initialise(config, jax.random.key(0)))
    eight = make_mesh(2, 2, 2)
    with jax.set_mesh(eight):
        found = jax.jit(hidden)(params.initialise(config, jax.random.key(0), eight))
    np.testing.assert_allclose(found, alone, atol=1e-3)  # an activation may be rounded the other way
