"""Adapters against PEFT, over the same base in transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
from transformers import AutoModelForCausalLM  # noqa: E402

from metaagentx.policy import adapters, model, params, spec  # noqa: E402
from metaagentx.policy.config import LoraOptions  # noqa: E402
from metaagentx.policy.hf_config import UnsupportedSetting  # noqa: E402
from metaagentx.policy.peft_format import load_adapter, save_adapter  # noqa: E402
from metaagentx.policy.save import save  # noqa: E402
from tests.policy import tiny  # noqa: E402

TOKENS = np.random.default_rng(0).integers(0, tiny.LLAMA.vocab_size, (4, 16)).astype(np.int32)
OPTIONS = LoraOptions(rank=4, alpha=6.0)
CASES = {
    "llama": (tiny.LLAMA, OPTIONS),
    "qwen2": (tiny.QWEN2, LoraOptions(rank=3, alpha=2.5, targets="[qv]|down")),
    "qwen3": (tiny.QWEN3, OPTIONS),
    "qwen3_moe": (tiny.QWEN3_MOE, LoraOptions(rank=4, alpha=6.0, targets="[qkvo]")),
}


def noisy(config, options, seed=0):
    rng = np.random.default_rng(seed)
    shapes = adapters.abstract(config, options)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), shapes)


def network(directory, config):
    """A fresh base, and transformers' model of it."""
    base = params.initialise(config, jax.random.key(0))
    if not directory.exists():
        save(directory, base, config)
    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return base, loaded.eval()


@functools.partial(jax.jit, static_argnums=1)
def ours(weights, config):
    positions = jnp.broadcast_to(jnp.arange(TOKENS.shape[1])[None], TOKENS.shape)
    hidden = model.forward(weights, config, TOKENS, positions, jnp.ones_like(TOKENS))
    return jax.nn.log_softmax(model.unembed(weights, config, hidden), axis=-1)


def theirs(network, **more):
    with torch.no_grad():
        logits = network(input_ids=torch.tensor(TOKENS, dtype=torch.long), **more).logits
        return torch.log_softmax(logits.float(), dim=-1).numpy()


@pytest.mark.parametrize("name", CASES)
def test_an_exported_adapter_is_the_same_in_peft_and_merges_to_the_same_weights(tmp_path, name):
    config, options = CASES[name]
    base, loaded = network(tmp_path / "base", config)
    adapter = noisy(config, options)
    save_adapter(tmp_path / "adapter", adapter, options, config, base=str(tmp_path / "base"))
    plain = theirs(loaded)
    wrapped = peft.PeftModel.from_pretrained(loaded, tmp_path / "adapter")
    assert np.abs(theirs(wrapped) - plain).max() > 0.1
    np.testing.assert_allclose(ours(adapters.attach(base, adapter, options), config), theirs(wrapped), atol=2e-5)

    state = {name: weight.numpy() for name, weight in wrapped.merge_and_unload().state_dict().items()}
    merged, specs = adapters.merge(base, adapter, options)["layers"], spec.table(config)["layers"]
    for target in adapters.target_names(config, options):
        expected = np.stack([state[specs[target].hf_name.format(layer)] for layer in range(config.layers)])
        np.testing.assert_allclose(merged[target], expected, atol=1e-6)


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], r".*\.(o|down)_proj", "all-linear"])
def test_an_adapter_that_peft_saved_is_the_same_here(tmp_path, modules):
    config = tiny.QWEN3
    base, loaded = network(tmp_path / "base", config)
    torch.manual_seed(0)
    described = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=modules, init_lora_weights=False, lora_dropout=0.1, task_type="CAUSAL_LM"
    )
    wrapped = peft.get_peft_model(loaded, described).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    adapter, options = load_adapter(tmp_path / "adapter", config)
    np.testing.assert_allclose(ours(adapters.attach(base, adapter, options), config), theirs(wrapped), atol=2e-5)


def test_an_adapter_per_row_is_pefts_mixed_batch(tmp_path):
    config = tiny.LLAMA
    base, loaded = network(tmp_path / "base", config)
    each = {name: noisy(config, OPTIONS, seed) for seed, name in enumerate(("designer", "executor"))}
    for name, adapter in each.items():
        save_adapter(tmp_path / name, adapter, OPTIONS, config, base=None)
    wrapped = peft.PeftModel.from_pretrained(loaded, tmp_path / "designer", adapter_name="designer")
    wrapped.load_adapter(tmp_path / "executor", adapter_name="executor")
    expected = theirs(wrapped, adapter_names=["executor", "__base__", "designer", "executor"])
    several = adapters.attach_several(base, adapters.stack([*each.values()]), np.int32([1, -1, 0, 1]), OPTIONS)
    np.testing.assert_allclose(ours(several, config), expected, atol=2e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 3}},
        {"layers_to_transform": [0]},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_peft_can_do_beyond_plain_lora_is_refused_by_name(tmp_path, setting):
    _, loaded = network(tmp_path / "base", tiny.LLAMA)
    described = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], task_type="CAUSAL_LM", **setting)
    peft.get_peft_model(loaded, described).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UnsupportedSetting, match=next(iter(setting))):
        load_adapter(tmp_path / "adapter", tiny.LLAMA)
