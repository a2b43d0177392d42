"""Prompts computed after a beginning that exists already, against the same prompts computed whole."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import params, prefill
from tests.policy import tiny

compute = jax.jit(prefill.prefill, static_argnums=(1, 2))
extend = jax.jit(prefill.extend, static_argnums=1)
SIZES, BEGIN = np.int32([12, 9, 11, 5]), np.int32([7, 8, 4, 0])
WIDTH, REST = 12, 8  # positions in all, and of those that are computed after the beginning
SLOW = ("llama", "llama3", "yarn", "tied", "qk_norm")  # what sets these apart, the others have too


def study(config, extend=extend):
    """(logits, keys and values) of prompts computed whole, then of the same prompts from `BEGIN` on."""
    weights = params.initialise(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (len(SIZES), WIDTH)).astype(np.int32)
    whole = compute(weights, config, "dense", tokens, SIZES)
    # What lies beyond the beginning is not read: it is large enough to be seen.
    beyond = np.arange(WIDTH)[None] >= BEGIN[:, None]
    context = jax.tree.map(lambda x: np.where(beyond[:, None, :, None], 1e4, x), whole[1])
    rest = np.zeros((len(SIZES), REST), np.int32)
    for row, (begin, size) in enumerate(zip(BEGIN, SIZES, strict=True)):
        rest[row, : size - begin] = tokens[row, begin:size]
    return jax.device_get((whole, extend(weights, config, rest, BEGIN, SIZES - BEGIN, context)))


def assert_equal_prompts(whole, extended, atol):
    np.testing.assert_allclose(extended[0], whole[0], atol=atol)
    for row, size in enumerate(SIZES):
        for expected, rows in zip(jax.tree.leaves(whole[1]), jax.tree.leaves(extended[1]), strict=True):
            np.testing.assert_allclose(rows[row, :, :size], expected[row, :, :size], atol=atol)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in tiny.CONFIGS])
def test_a_prompt_computed_from_its_middle_on_is_the_prompt_computed_whole(name):
    assert_equal_prompts(*study(tiny.CONFIGS[name]), atol=1e-5)


def test_queries_in_parts_see_what_they_see_together(monkeypatch):
    config = tiny.config(layers=1)
    whole, _ = study(config)
    monkeypatch.setattr(prefill, "QUERIES", 3)
    _, extended = study(
        config, jax.jit(lambda weights, config, *rest: prefill.extend(weights, config, *rest), static_argnums=1)
    )
    assert_equal_prompts(whole, extended, atol=1e-5)


def test_on_a_mesh_it_is_the_same():
    config = tiny.config()
    whole, _ = study(config)
    with jax.set_mesh(make_mesh(2, 2, 2)):
        _, extended = study(config)
    assert_equal_prompts(whole, extended, atol=1e-5)
