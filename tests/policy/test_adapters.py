from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import adapters, model, params
from metaagentx.policy.adapters import LoraOptions
from metaagentx.policy.config import Experts
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
