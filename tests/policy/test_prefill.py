"""Prompts computed in blocks after a beginning that exists already, against the same prompts computed whole."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import params, prefill
from metaagentx.policy.cache import empty_cache, put, read
from tests.policy import tiny

compute = jax.jit(prefill.prefill, static_argnums=(1, 2))
extend = jax.jit(prefill.extend, static_argnums=(1, 2, 8))
SIZES, BLOCK = np.int32([12, 9, 11, 5]), 4
BEGIN = np.int32([8, 4, 4, 0])  # tokens of each that are in its slot before
SLOTS, WIDTH = np.int32([5, 0, 2, 3]), 12
SLOW = ("llama", "llama3", "yarn", "tied", "qk_norm")  # what sets these apart, the others have too


def study(config, kernel, shards=1):
    """(logits, keys and values) of prompts computed whole, then of the same prompts in blocks from `BEGIN` on.

    The blocks are laid out for so many `shards` of the slots.
    """
    weights = params.initialise(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (len(SIZES), WIDTH)).astype(np.int32)
    whole = compute(weights, config, "dense", tokens, SIZES)
    # What lies beyond the beginning is not read: it is large enough to be seen.
    beyond = (np.arange(WIDTH)[None] >= BEGIN[:, None])[:, None, :, None]
    cache = empty_cache(config, kernel, 8, WIDTH)
    begun = [tuple(np.where(beyond, 1e4, x) for x in rows) for rows in whole[1]]
    cache = [put(kernel, layer, SLOTS, rows) for layer, rows in zip(cache, begun, strict=True)]
    blocks = [(row, i) for row in range(len(SIZES)) for i in range(BEGIN[row] // BLOCK, -(-SIZES[row] // BLOCK))]
    parts = [[block for block in blocks if SLOTS[block[0]] * shards // 8 == shard] for shard in range(shards)]
    most = 1 + max(map(len, parts))
    blocks = [block for part in parts for block in [*part, *[(-1, 0)] * (most - len(part))]]  # -1 is padding
    rows, numbers = np.int32(blocks).T
    lengths = np.minimum(BLOCK, SIZES[rows] - numbers * BLOCK)
    slots = np.where(rows < 0, 8, SLOTS[rows]).astype(np.int32)
    tables = tokens.reshape(len(SIZES), -1, BLOCK)[rows, numbers]
    logits, cache = extend(weights, config, kernel, cache, tables, numbers, lengths, slots, WIDTH)
    last = [blocks.index((row, (SIZES[row] - 1) // BLOCK)) for row in range(len(SIZES))]
    held = [read(kernel, layer, SLOTS, WIDTH) for layer in cache]
    return jax.device_get(whole), (np.asarray(logits)[last], jax.device_get(held))


def assert_equal_prompts(whole, extended, atol):
    np.testing.assert_allclose(extended[0], whole[0], atol=atol)
    for row, size in enumerate(SIZES):
        for expected, rows in zip(jax.tree.leaves(whole[1]), jax.tree.leaves(extended[1]), strict=True):
            np.testing.assert_allclose(rows[row, :, :size], expected[row, :, :size], atol=atol)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in tiny.CONFIGS])
def test_a_prompt_computed_in_blocks_from_its_middle_on_is_the_prompt_computed_whole(name):
    assert_equal_prompts(*study(tiny.CONFIGS[name], "dense"), atol=1e-5)


@pytest.mark.parametrize("kernel", ["paged", "cudnn"])
def test_blocks_are_written_into_every_layout(kernel):
    assert_equal_prompts(*study(tiny.config(), kernel), atol=1e-5)


@pytest.mark.parametrize("kernel", ["dense", "paged", "cudnn"])
def test_on_a_mesh_it_is_the_same(kernel):
    config = tiny.config()
    whole, _ = study(config, kernel)
    with jax.set_mesh(make_mesh(2, 2, 2)):
        _, extended = study(config, kernel, shards=4)
    assert_equal_prompts(whole, extended, atol=1e-5)
