"""On a mesh every device shares prompts among its own slots: the same tokens, and no row of a cache between devices."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from metaagentx.ahead.hlo import Program
from metaagentx.mesh import make_mesh
from metaagentx.policy import cache_cudnn, cache_paged, kernels
from metaagentx.policy.params import initialise, shardings
from metaagentx.rollout.engine import Engine
from tests.policy.test_cache import anywhere, by_xla
from tests.rollout.test_engine import EOS, sample

CASES = [("dense", "blocked"), *((kernel, "dense") for kernel in ("dense", "paged", "cudnn"))]


@pytest.fixture(autouse=True)
def on_any_device(monkeypatch):
    monkeypatch.setattr(kernels, "for_decoding", lambda choice, config, platform: choice)
    monkeypatch.setattr(cache_paged, "attend", functools.partial(cache_paged.attend_by, anywhere))
    monkeypatch.setattr(cache_cudnn, "attend", by_xla)


def turns(config, params, options, mesh=None):
    """Three turns of eight dialogues with a common beginning; the replies, and what was done."""
    engine = Engine(config, options, (EOS,))
    engine.load(params if mesh is None else jax.device_put(params, shardings(config, mesh)), 1)
    rng = np.random.default_rng(0)
    rows = [np.concatenate([[2, 3, 4, 5], rng.integers(2, 13, 1 + i % 2)]).astype(np.int32) for i in range(8)]
    found = []
    for _ in range(3):
        done = sample(engine, rows)
        found.append(done)
        rows = [np.concatenate([row, done[i].tokens[:2], [6]])[:12].astype(np.int32) for i, row in enumerate(rows)]
    return found, engine.take_work()


@pytest.mark.parametrize(
    ("kernel", "attention"), [CASES[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:])]
)
def test_prompts_that_share_within_a_shard_sample_what_they_do_on_one_device(config, options, kernel, attention):
    config = dataclasses.replace(config, heads=4, kv_heads=2)
    params = jax.tree.map(lambda w: w * 10 if w.ndim > 2 else w, initialise(config, jax.random.key(0)))
    options = dataclasses.replace(options, share_unit=2, attention=attention, decode_attention=kernel)
    options = dataclasses.replace(options, prompt_buckets=(12,), admit_buckets=(8,))
    expected, _ = turns(config, params, options)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        found, work = turns(config, params, options, mesh)
    assert work.prefix_tokens > 0
    for mine, theirs in zip(found, expected, strict=True):
        for number, reply in theirs.items():
            np.testing.assert_array_equal(mine[number].tokens, reply.tokens)
            np.testing.assert_allclose(mine[number].logprobs, reply.logprobs, atol=1e-4)


@pytest.mark.parametrize("kernel", ["dense", "paged", "cudnn"])
def test_no_row_of_a_cache_is_moved_between_devices(config, options, kernel):
    """Weights are whole on a mesh of this kind; blocks, hidden states and logits are far smaller than rows."""
    config = dataclasses.replace(config, heads=4, kv_heads=2, head_dim=32)
    options = dataclasses.replace(options, capacity=512, prompt_buckets=(512,), decode_attention=kernel)
    config = dataclasses.replace(config, max_length=512)
    params = initialise(config, jax.random.key(0))
    mesh = make_mesh(4, 1, 2)
    with jax.set_mesh(mesh):
        engine = Engine(config, options, (EOS,))
        engine.load(jax.device_put(params, shardings(config, mesh)), 1)
        programs, weights = engine._programs, engine._weights
        fork = compiled(programs.calls.fork(programs.state, 8, 512, ()))
        refill = compiled(programs.calls.refill(weights, programs.state, 1, 512, ()))
    assert not Program(fork.as_text()).cost().collectives
    row = 2 * 512 * 1 * 32 * 4  # bytes of a device's keys and values of one slot and layer
    assert 0 < sum(Program(refill.as_text()).cost().collectives.values()) < row
    # A device makes room for the rows of its own slots at most.
    memory = fork.memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * memory.alias_size_in_bytes


def compiled(call):
    program, arguments = call
    return program.lower(*arguments).compile()
