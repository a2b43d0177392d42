import dataclasses
import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from metaagentx.policy import hf_config, params
from metaagentx.policy.config import Experts, Llama3Scaling, ModelConfig, YarnScaling
from metaagentx.policy.hf_config import (
    MissingConstant,
    UnsupportedArchitecture,
    UnsupportedSetting,
    from_hf,
    read_config,
    write_config,
)
from tests.policy import tiny

MODELS = Path(__file__).parents[2] / "configs" / "models"
PUBLISHED = {path.stem: json.loads(path.read_text()) for path in MODELS.glob("*.json")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2_135m", 134_515_008),
        ("qwen2_5_1_5b", 1_543_714_304),
        ("qwen3_4b", 4_022_468_096),
        ("llama3_1_8b", 8_030_261_248),
        ("qwen3_8b", 8_190_735_360),
        ("qwen3_30b_a3b", 30_532_122_624),
    ],
)
def test_published_models_have_as_many_weights_as_their_cards_say(name, expected):
    assert params.count(read_config(MODELS / f"{name}.json", "bfloat16")) == expected


def test_qwen3_8b_is_read_as_it_is_published(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["qwen3_8b"]))
    assert read_config(tmp_path, "float32") == ModelConfig(
        vocab_size=151936,
        d_model=4096,
        layers=36,
        heads=32,
        kv_heads=8,
        head_dim=128,
        d_ff=12288,
        rope_theta=1e6,
        rope_scaling=None,
        norm_eps=1e-6,
        qkv_bias=False,
        qk_norm=True,
        experts=None,
        tied_embeddings=False,
        max_length=40960,
        dtype="float32",
    )


def test_what_sets_the_families_apart_is_read():
    read = {name: from_hf(raw, "bfloat16") for name, raw in PUBLISHED.items()}
    assert read["llama3_1_8b"].rope_scaling == Llama3Scaling(8.0, 1.0, 4.0, 8192)
    assert read["llama3_1_8b"].head_dim == 128  # derived: the file has none
    assert read["qwen2_5_1_5b"].qkv_bias
    assert not read["qwen2_5_1_5b"].qk_norm
    assert read["qwen3_30b_a3b"].experts == Experts(count=128, active=8, d_ff=768, normalise=True)
    assert read["qwen3_4b"].tied_embeddings


@st.composite
def configs(draw):
    size, positive = st.integers(1, 64), st.floats(1e-6, 1e7)
    family = draw(st.sampled_from(list(hf_config.FAMILIES.values())))
    count = draw(size)
    llama3 = st.builds(
        Llama3Scaling, st.floats(1, 64), st.floats(0.5, 2), st.floats(3, 8), original_length=st.integers(1, 10**6)
    )
    yarn = st.builds(
        YarnScaling,
        factor=st.floats(1, 64),
        beta_fast=st.floats(8, 64),
        beta_slow=st.floats(0.5, 4),
        original_length=st.integers(1, 10**6),
        attention_factor=st.floats(0.1, 2),
        truncate=st.booleans(),
    )
    kv_heads = draw(size)
    return ModelConfig(
        vocab_size=draw(size),
        d_model=draw(size),
        layers=draw(size),
        heads=kv_heads * draw(size),
        kv_heads=kv_heads,
        head_dim=2 * draw(size),
        d_ff=draw(size),
        rope_theta=draw(st.floats(1.5, 1e7)),
        rope_scaling=draw(st.none() | llama3 | yarn),
        norm_eps=draw(positive),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        experts=Experts(count, draw(st.integers(1, count)), draw(size), draw(st.booleans()))
        if family.mixture
        else None,
        tied_embeddings=draw(st.booleans()),
        max_length=draw(size),
        dtype=draw(st.sampled_from(["float32", "bfloat16"])),
    )


@given(configs())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_again(config):
    raw = json.loads(json.dumps(write_config(config)))
    assert from_hf(raw, config.dtype) == config
    assert raw["torch_dtype"] == config.dtype


@given(configs())
@settings(max_examples=30, deadline=None)
def test_the_spelling_of_transformers_5_says_the_same(config):
    raw = write_config(config)
    scaling = raw.pop("rope_scaling") or {"rope_type": "default"}
    raw["rope_parameters"] = {**scaling, "rope_theta": raw.pop("rope_theta")}
    if config.experts is not None:
        raw["num_local_experts"] = raw.pop("num_experts")
    assert from_hf(raw, config.dtype) == config


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_constant_is_asked_for(name):
    raw = write_config(tiny.FAMILIES[name])
    assumed = {"architectures", "torch_dtype", "rope_scaling", *hf_config.FIXED}
    if not tiny.FAMILIES[name].qk_norm:
        assumed |= {"head_dim"}
    for key in raw.keys() - assumed:
        with pytest.raises((MissingConstant, UnsupportedArchitecture), match=key):
            from_hf({k: v for k, v in raw.items() if k != key}, "float32")
        with pytest.raises((MissingConstant, UnsupportedArchitecture), match=key):
            from_hf({**raw, key: [None]}, "float32")


@pytest.mark.parametrize("name", ["llama3", "yarn"])
def test_every_constant_of_a_stretch_is_asked_for(name):
    raw = write_config(tiny.FAMILIES[name])
    optional = {"beta_fast", "beta_slow", "attention_factor", "truncate", "rope_type"}
    for key in raw["rope_scaling"].keys() - optional:
        scaling = {k: v for k, v in raw["rope_scaling"].items() if k != key}
        with pytest.raises(MissingConstant, match=key):
            from_hf({**raw, "rope_scaling": scaling}, "float32")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("hidden_act", None),
        ("attention_bias", True),
        ("attention_dropout", 0.1),
        ("auto_map", {"AutoModel": "modeling.Model"}),
        ("decoder_sparse_step", 2),
        ("mlp_bias", True),
        ("mlp_only_layers", [0]),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"quant_method": "awq"}),
        ("rope_interleaved", True),
        ("use_sliding_window", True),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 2.0}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("rope_scaling", {"rope_type": "default", "mrope_section": [1, 1, 2]}),
        ("shared_expert_intermediate_size", 64),
        ("logit_scale", 0.5),
    ],
)
def test_a_setting_that_would_change_the_computation_is_refused_by_name(key, value):
    raw = {k: v for k, v in write_config(tiny.QWEN3_MOE).items() if k != "rope_scaling"}
    from_hf(raw, "float32")
    name = next((k for k in ("mrope_section", "partial_rotary_factor") if k in str(value)), key)
    with pytest.raises(UnsupportedSetting, match=name):
        from_hf({**raw, key: value}, "float32")


def test_a_windowed_file_whose_window_is_off_is_read():
    raw = {**write_config(tiny.QWEN2), "sliding_window": 32, "max_window_layers": 1, "use_sliding_window": False}
    assert from_hf(raw, "float32") == tiny.QWEN2


@pytest.mark.parametrize("name", ["mistral", "qwen3_next", "gemma3_text", "gpt2", None])
def test_another_architecture_is_refused_with_those_that_are_supported(name):
    with pytest.raises(UnsupportedArchitecture, match=r"model_type.*llama.*qwen2.*qwen3.*qwen3_moe"):
        from_hf({**write_config(tiny.LLAMA), "model_type": name}, "float32")


def test_a_head_that_is_not_a_language_models_is_refused():
    with pytest.raises(UnsupportedArchitecture, match="LlamaForSequenceClassification"):
        from_hf({**write_config(tiny.LLAMA), "architectures": ["LlamaForSequenceClassification"]}, "float32")


def test_a_constant_given_twice_must_be_the_same():
    raw = write_config(tiny.QWEN3_MOE)
    assert from_hf({**raw, "num_local_experts": 8}, "float32") == tiny.QWEN3_MOE
    with pytest.raises(MissingConstant, match=r"num_experts.*twice"):
        from_hf({**raw, "num_local_experts": 16}, "float32")
    with pytest.raises(MissingConstant, match=r"rope_theta.*twice"):
        from_hf({**raw, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "float32")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 1.138629),  # 0.1 ln 4 + 1
        ({"attention_factor": 0.5}, 0.5),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({"mscale": 0.707, "mscale_all_dim": 1.0}, 0.964327),
        ({"mscale": 0.707}, 1.138629),
    ],
)
def test_the_temperature_of_yarn_is_what_transformers_computes(given, expected):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, **given}
    read = from_hf({**write_config(tiny.QWEN3), "rope_scaling": scaling}, "float32").rope_scaling
    assert read == YarnScaling(4.0, 32.0, 1.0, 16, read.attention_factor, truncate=True)
    assert read.attention_factor == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("content", [b"{", b"[]", b"3", b"\xff\xfe"])
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(MissingConstant, match=r"config\.json"):
        read_config(tmp_path, "float32")


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read_config(tmp_path, "float32")
    raw = {**write_config(tiny.LLAMA), "num_key_value_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"config\.json: .*kv_heads"):
        read_config(tmp_path, "float32")


def test_a_model_of_no_family_cannot_be_written():
    with pytest.raises(UnsupportedArchitecture, match="qkv_bias"):
        write_config(dataclasses.replace(tiny.QWEN3, qkv_bias=True))
