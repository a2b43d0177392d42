"""The engine over every layout of the cache, with the kernels' arithmetic in XLA."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from metaagentx.mesh import make_mesh
from metaagentx.policy import cache_cudnn, cache_paged, kernels
from metaagentx.policy.params import initialise, shardings
from metaagentx.rollout.engine import Engine
from tests.policy.test_cache import anywhere, by_xla
from tests.rollout.test_engine import EOS, prompts, sample


@pytest.fixture(autouse=True)
def on_any_device(monkeypatch):
    monkeypatch.setattr(kernels, "for_decoding", lambda choice, config, platform: choice)
    monkeypatch.setattr(cache_paged, "attend", functools.partial(cache_paged.attend_by, anywhere))
    monkeypatch.setattr(cache_cudnn, "attend", by_xla)


def replies(config, params, options, rows):
    engine = Engine(config, options, (EOS,))
    engine.load(params, 1)
    return sample(engine, rows)


@pytest.mark.parametrize("kernel", ["paged", "cudnn"])
def test_what_is_sampled_does_not_depend_on_how_the_cache_is_laid_out(config, params, options, kernel):
    rows = prompts(12)
    # Half of the beginnings are shared, so that rows are filled, continued and copied.
    rows = [np.concatenate([rows[0][:4], row])[:12] for row in rows]
    options = dataclasses.replace(options, share_unit=2)
    plain = replies(config, params, options, rows)
    other = replies(config, params, dataclasses.replace(options, decode_attention=kernel), rows)
    for number, reply in plain.items():
        np.testing.assert_array_equal(other[number].tokens, reply.tokens)
        np.testing.assert_allclose(other[number].logprobs, reply.logprobs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["paged", "cudnn"])
def test_a_mesh_changes_no_token_of_any_layout(config, params, options, kernel):
    config = dataclasses.replace(config, heads=4, kv_heads=2)
    params = jax.tree.map(lambda w: w * 10 if w.ndim > 2 else w, initialise(config, jax.random.key(0)))
    rows, options = prompts(12), dataclasses.replace(options, decode_attention=kernel)
    alone = replies(config, params, options, rows)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        together = replies(config, jax.device_put(params, shardings(config, mesh)), options, rows)
    for number, reply in alone.items():
        np.testing.assert_array_equal(together[number].tokens, reply.tokens)
