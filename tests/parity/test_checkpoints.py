"""Checkpoints between transformers and here: what one saves the other loads, bit for bit."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from metaagentx.policy import hf_config  # noqa: E402
from metaagentx.policy.load import load  # noqa: E402
from metaagentx.policy.pretrained_config import read_config  # noqa: E402
from metaagentx.policy.save import save  # noqa: E402
from tests.policy import tiny  # noqa: E402

CONFIGS = {
    **tiny.FAMILIES,
    "llama, tied": dataclasses.replace(tiny.LLAMA, tied_embeddings=True),
    "qwen3, untied": dataclasses.replace(tiny.QWEN3, tied_embeddings=False),
}
TOKENS = [[1, 5, 9, 2, 7, 7, 3]]


def published(directory, config, dtype, max_shard_size):
    """A random model, saved as transformers saves its own."""
    theirs = transformers.AutoConfig.for_model(**hf_config.write_config(config))
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(theirs, dtype=dtype).eval()
    with torch.no_grad():
        for weight in network.parameters():  # norms are not ones, biases not zeros
            weight.add_(0.1 * torch.randn_like(weight))
    network.save_pretrained(directory, max_shard_size=max_shard_size)
    return network


def logits(network):
    with torch.no_grad():
        return network(torch.tensor(TOKENS)).logits


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("dtype", "cut"), [("float32", False), ("bfloat16", True)])
def test_a_checkpoint_of_transformers_comes_back_to_it_unchanged(tmp_path, name, dtype, cut):
    first, second = tmp_path / "theirs", tmp_path / "ours"
    network = published(first, CONFIGS[name], getattr(torch, dtype), "20KB" if cut else "1GB")
    config = read_config(first, dtype)
    assert config == dataclasses.replace(CONFIGS[name], dtype=dtype)

    save(second, load(first, config), config, shard_bytes=20_000 if cut else 10**9)
    assert all((place / "model.safetensors.index.json").exists() == cut for place in (first, second))
    again, info = transformers.AutoModelForCausalLM.from_pretrained(second, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    assert again.dtype == network.dtype
    weights, wanted = again.state_dict(), network.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[key], wanted[key]) for key in wanted)
    assert torch.equal(logits(again.eval()), logits(network))


def test_bfloat16_on_disk_is_exact_in_float32(tmp_path):
    network = published(tmp_path, tiny.LLAMA, torch.bfloat16, "1GB")
    params = load(tmp_path, read_config(tmp_path, "float32"))
    wanted = network.state_dict()["model.embed_tokens.weight"].float().numpy()
    assert params["embed"].dtype == jnp.float32
    np.testing.assert_array_equal(params["embed"], wanted)
