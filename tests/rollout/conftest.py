from __future__ import annotations

import jax
import pytest

from metaagentx.policy.config import ModelConfig
from metaagentx.policy.params import initialise
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions

EOS = 1


@pytest.fixture(scope="session")
def config():
    """A model so small that everything about it can be recomputed."""
    return ModelConfig(
        vocab_size=13, d_model=16, layers=2, heads=2, kv_heads=1, head_dim=8, d_ff=32, rope_theta=1e4,
        rope_scaling=None, norm_eps=1e-6, qkv_bias=False, qk_norm=True, experts=None, tied_embeddings=False,
        max_length=64, dtype="float32",
    )  # fmt: skip


@pytest.fixture(scope="session")
def params(config):
    # Ten times larger than a fresh model's: far from uniform, so that tests can tell distributions apart.
    return jax.tree.map(lambda w: w * 10 if w.ndim > 2 else w, initialise(config, jax.random.key(0)))


@pytest.fixture(scope="session")
def options():
    return EngineOptions(slots=8, capacity=24, prompt_buckets=(4, 12), admit_buckets=(2, 8), chunk=3)


@pytest.fixture
def engine(config, params, options):
    engine = Engine(config, options, (EOS,))
    engine.load(params, 1)
    return engine
