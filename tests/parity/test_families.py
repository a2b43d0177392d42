"""Every family against transformers: a small random model of theirs, and its weights under our names."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding  # noqa: E402

from metaagentx.policy import model, rope, spec  # noqa: E402
from metaagentx.policy.config import Experts, YarnScaling  # noqa: E402
from metaagentx.policy.hf_config import read_config, write_config  # noqa: E402
from metaagentx.policy.params import count  # noqa: E402
from tests.policy import tiny  # noqa: E402

MODELS = Path(__file__).parents[2] / "configs" / "models"
ROWS, LENGTH = 2, 40  # beyond the original context of every scaling
YARN = tiny.YARN.rope_scaling
assert isinstance(YARN, YarnScaling)

CONFIGS = {
    **tiny.FAMILIES,
    "llama, tied, every head its own key": dataclasses.replace(tiny.LLAMA, kv_heads=4, tied_embeddings=True),
    "llama, heads wider than the model": dataclasses.replace(tiny.LLAMA, head_dim=16),
    "qwen2, untied, one key": dataclasses.replace(tiny.QWEN2, kv_heads=1, tied_embeddings=False),
    "qwen3, untied": dataclasses.replace(tiny.QWEN3, tied_embeddings=False),
    "yarn, ramp not rounded": dataclasses.replace(
        tiny.YARN, rope_scaling=dataclasses.replace(YARN, truncate=False, beta_fast=3.0, attention_factor=1.0)
    ),
    "yarn, a step": dataclasses.replace(tiny.YARN, rope_scaling=dataclasses.replace(YARN, beta_fast=1.0, factor=40.0)),
    "qwen3_moe, as they are": dataclasses.replace(tiny.QWEN3_MOE, experts=Experts(8, 3, 16, normalise=False)),
    "qwen3_moe, yarn, tied": dataclasses.replace(tiny.YARN, experts=Experts(4, 1, 16, normalise=True)),
}


def published(directory, config):
    """A random model of transformers, saved in `directory` as it saves models, and its weights under our names."""
    (directory / "config.json").write_text(json.dumps(write_config(config)))
    theirs = AutoConfig.from_pretrained(directory, attn_implementation="eager")
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(theirs, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in network.parameters():  # larger than usual, and no norm is one, no bias zero
            weight.add_(torch.randn_like(weight) * (0.3 if weight.ndim == 1 else weight.shape[-1] ** -0.5))
    network.save_pretrained(directory)
    return network, weights(load_file(directory / "model.safetensors"), config)


def weights(state, config):
    """A checkpoint's arrays, stacked as the table says; every one is used, and used once."""
    unused = set(state)

    def read(s):
        experts = [] if s.hf_name.count("{}") < 2 else range(s.shape[1])
        layers = range(s.shape[0]) if "{}" in s.hf_name else []

        def one(*numbers):
            name = s.hf_name.format(*numbers)
            unused.remove(name)
            return state[name]

        if experts:
            return np.stack([np.stack([one(i, e) for e in experts]) for i in layers])
        return np.stack([one(i) for i in layers]) if layers else one()

    read_all = jax.tree.map(read, spec.table(config))
    assert not unused
    assert all(jax.tree.leaves(jax.tree.map(lambda w, s: w.shape == s.shape, read_all, spec.table(config))))
    return read_all


@functools.partial(jax.jit, static_argnums=1)
def ours(params, config, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    hidden = model.forward(params, config, tokens, positions, jnp.ones_like(tokens))
    return jax.nn.log_softmax(model.unembed(params, config, hidden), axis=-1)


def theirs(network, tokens):
    with torch.no_grad():
        return torch.log_softmax(network(torch.tensor(tokens, dtype=torch.long)).logits.float(), dim=-1).numpy()


def tokens_of(config):
    return np.random.default_rng(1).integers(0, config.vocab_size, (ROWS, LENGTH)).astype(np.int32)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probabilities_are_those_of_transformers(tmp_path, name):
    config, tokens = CONFIGS[name], tokens_of(CONFIGS[name])
    network, params = published(tmp_path, config)
    assert read_config(tmp_path, "float32") == config  # what transformers 5 wrote
    np.testing.assert_allclose(ours(params, config, tokens), theirs(network, tokens), atol=2e-5)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_bfloat16_is_as_close_to_exact_as_transformers_is(tmp_path, name):
    """Both against the rounded weights in float32: measured means 0.007 to 0.028 here, 0.007 to 0.017 theirs."""
    config, tokens = CONFIGS[name], tokens_of(CONFIGS[name])
    network, params = published(tmp_path, config)
    rounded = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), params)
    exact = theirs(network.to(torch.bfloat16).float(), tokens)
    y = ours(rounded, dataclasses.replace(config, dtype="bfloat16"), tokens)
    assert np.abs(y - exact).mean() < 0.04


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0},
        {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0},
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2.0, "truncate": False},
        {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.5},
        {"type": "yarn", "factor": 1.0},
    ],
)
def test_frequencies_of_a_real_size_are_those_of_transformers(tmp_path, scaling):
    raw = json.loads((MODELS / "qwen3_8b.json").read_text())
    if scaling is not None:
        raw["rope_scaling"] = {**scaling, "original_max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    table = Qwen3RotaryEmbedding(AutoConfig.from_pretrained(tmp_path))
    config = read_config(tmp_path, "float32")
    np.testing.assert_allclose(rope.frequencies(config), table.inv_freq.numpy(), rtol=1e-6)
    cos, sin = rope.rotary(jnp.zeros((1, 1)), config)
    np.testing.assert_allclose(cos, table.attention_scaling, rtol=1e-6)
    assert not sin.any()


@pytest.mark.parametrize("name", [path.stem for path in MODELS.glob("*.json")])
def test_published_constants_are_read_as_transformers_reads_them(tmp_path, name):
    config = read_config(MODELS / f"{name}.json", "bfloat16")
    AutoConfig.from_pretrained(MODELS / f"{name}.json").save_pretrained(tmp_path)  # in the spelling of transformers 5
    assert read_config(tmp_path, "bfloat16") == config
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert sum(weight.numel() for weight in network.parameters()) == count(config)
