"""A Hugging Face `config.json` as a `ModelConfig`, and back.

A key of the file is read, or known to change nothing here, or refused by its name: none is ignored because nobody knew
it. No constant is assumed, with two exceptions that transformers makes too and published checkpoints rely on: without
`head_dim`, a Llama or Qwen2 file means hidden_size / num_attention_heads, and YaRN's optional constants have its
paper's values.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from etils import epath

from metaagentx.policy.config import Experts, Llama3Scaling, ModelConfig, YarnScaling
from metaagentx.policy.hf_values import (
    MissingConstant,
    Raw,
    UnsupportedSetting,
    either,
    flag,
    integer,
    number,
    refuse_unknown,
)


class UnsupportedArchitecture(ValueError):
    """The file is of a model that is not one of `FAMILIES`."""


@dataclass(frozen=True, slots=True)
class Family:
    """What a `model_type` says that no key of the file does."""

    architecture: str
    qkv_bias: bool
    qk_norm: bool
    mixture: bool


FAMILIES = {
    "llama": Family("LlamaForCausalLM", qkv_bias=False, qk_norm=False, mixture=False),
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True, qk_norm=False, mixture=False),
    "qwen3": Family("Qwen3ForCausalLM", qkv_bias=False, qk_norm=True, mixture=False),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", qkv_bias=False, qk_norm=True, mixture=True),
}
DERIVED_HEAD_DIM = ("llama", "qwen2")

# Settings that change the computation, with the values that are computed here.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "attention_dropout": (0.0,),
    "auto_map": (None,),
    "decoder_sparse_step": (1,),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "mlp_only_layers": (None, []),
    "partial_rotary_factor": (None, 1.0),
    "quantization_config": (None,),
    "rope_interleaved": (False,),
    "use_mrope": (None, False),
    "use_sliding_window": (None, False),
}

DENSE = {
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "rope_theta", "rope_scaling", "rope_parameters", "rms_norm_eps", "tie_word_embeddings",
    "max_position_embeddings", "model_type", "architectures", "layer_types",
}  # fmt: skip
MIXTURE = {"num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"}

# Settings that change no log-probability: how to initialise, save, generate; windows that `use_sliding_window` turns
# off; the loss that balances experts; how Llama's matrices were once split.
HARMLESS = {
    "_attn_implementation_autoset", "_name_or_path", "bos_token_id", "chunk_size_feed_forward", "dtype",
    "eos_token_id", "id2label", "initializer_range", "is_llama_config", "label2id", "max_window_layers",
    "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp",
    "problem_type", "return_dict", "router_aux_loss_coef", "sliding_window", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
}  # fmt: skip


def read_config(path: epath.PathLike, dtype: str) -> ModelConfig:
    """The constants of a checkpoint.

    Args:
      path: a checkpoint's directory, or its `config.json`.
      dtype: "bfloat16" or "float32", of weights and activations here; the file's own is not asked.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: UnsupportedArchitecture, MissingConstant or UnsupportedSetting, naming file and key.
    """
    file = epath.Path(path)
    file = file / "config.json" if file.is_dir() else file
    try:
        raw = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MissingConstant(f"{file}: not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise MissingConstant(f"{file}: must hold an object of settings, not a {type(raw).__name__}")
    try:
        return from_hf(raw, dtype)
    except ValueError as error:
        raise type(error)(f"{file}: {error}") from error


def from_hf(raw: Raw, dtype: str) -> ModelConfig:
    """`read_config` of settings that are already read."""
    name, family = _family(raw)
    _refuse_unsupported(raw, family)
    heads = integer(raw, "num_attention_heads")
    width = integer(raw, "hidden_size")
    if raw.get("head_dim") is None and name in DERIVED_HEAD_DIM:
        if width % heads:
            raise MissingConstant(f"head_dim: missing, and hidden_size {width} is no multiple of {heads} heads")
        head_dim = width // heads
    else:
        head_dim = integer(raw, "head_dim")
    theta, scaling = _rope(raw)
    return ModelConfig(
        vocab_size=integer(raw, "vocab_size"),
        d_model=width,
        layers=integer(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=integer(raw, "num_key_value_heads"),
        head_dim=head_dim,
        d_ff=integer(raw, "intermediate_size"),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=number(raw, "rms_norm_eps"),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        experts=_experts(raw) if family.mixture else None,
        tied_embeddings=flag(raw, "tie_word_embeddings"),
        max_length=integer(raw, "max_position_embeddings"),
        dtype=dtype,
    )


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model, as transformers 4 and 5 load it; special tokens are the tokenizer's to add.

    Raises:
      UnsupportedArchitecture: no family has this combination of biases, norms and experts.
    """
    kind = (config.qkv_bias, config.qk_norm, config.experts is not None)
    names = [name for name, each in FAMILIES.items() if kind == (each.qkv_bias, each.qk_norm, each.mixture)]
    if not names:
        raise UnsupportedArchitecture(f"no family has qkv_bias, qk_norm, experts = {kind}: {', '.join(FAMILIES)}")
    name = names[0]
    raw = {
        "architectures": [FAMILIES[name].architecture],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config),
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": config.max_length,
        "torch_dtype": config.dtype,
    }
    if name != "qwen2":
        raw["attention_bias"] = False
    if config.experts is not None:
        raw |= {
            "num_experts": config.experts.count,
            "num_experts_per_tok": config.experts.active,
            "moe_intermediate_size": config.experts.d_ff,
            "norm_topk_prob": config.experts.normalise,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    return raw


def _family(raw: Raw) -> tuple[str, Family]:
    name, architectures = raw.get("model_type"), raw.get("architectures")
    supported = ", ".join(f"{name} ({family.architecture})" for name, family in FAMILIES.items())
    if not isinstance(name, str) or name not in FAMILIES:
        raise UnsupportedArchitecture(f"model_type: {name!r} is not supported; supported are {supported}")
    family = FAMILIES[name]
    if architectures not in (None, [family.architecture]):
        raise UnsupportedArchitecture(f"architectures: {architectures} is not supported; supported are {supported}")
    return name, family


def _refuse_unsupported(raw: Raw, family: Family) -> None:
    for key, accepted in FIXED.items():
        if (key in raw or key == "hidden_act") and raw.get(key) not in accepted:
            values = " or ".join(map(repr, accepted))
            raise UnsupportedSetting(f"{key}: {raw.get(key)!r} is not supported, only {values}")
    if others := sorted(set(raw.get("layer_types") or ()) - {"full_attention"}):
        raise UnsupportedSetting(f"layer_types: {', '.join(others)} is not supported, only full_attention")
    known = DENSE | HARMLESS | FIXED.keys() | (MIXTURE if family.mixture else set())
    refuse_unknown(raw.keys() - known, "")


def _experts(raw: Raw) -> Experts:
    return Experts(
        count=either(integer, (raw, "num_local_experts"), (raw, "num_experts")),
        active=integer(raw, "num_experts_per_tok"),
        d_ff=integer(raw, "moe_intermediate_size"),
        normalise=flag(raw, "norm_topk_prob"),
    )


def _rope(raw: Raw) -> tuple[float, Llama3Scaling | YarnScaling | None]:
    """Base and scaling: transformers 4 has `rope_theta` and `rope_scaling`, 5 has all in `rope_parameters`."""
    if raw.get("rope_scaling") and raw.get("rope_parameters"):
        raise MissingConstant("rope_scaling, rope_parameters: both are given; one must go")
    where = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    rope: Raw = raw.get(where) or {}
    theta = either(number, (rope, "rope_theta"), (raw, "rope_theta"))
    if not rope.keys() - {"rope_theta"}:
        return theta, None
    kind = rope.get("rope_type", rope.get("type"))
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise UnsupportedSetting(f"{where}.partial_rotary_factor: {rope['partial_rotary_factor']} is not supported")
    read = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
    scaling: Llama3Scaling | YarnScaling | None = None
    if kind == "llama3":
        scaling = Llama3Scaling(
            factor=number(rope, "factor"),
            low_freq_factor=number(rope, "low_freq_factor"),
            high_freq_factor=number(rope, "high_freq_factor"),
            original_length=integer(rope, "original_max_position_embeddings"),
        )
        read |= {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    elif kind == "yarn":
        factor = number(rope, "factor")
        scaling = YarnScaling(
            factor=factor,
            beta_fast=number(rope, "beta_fast") if rope.get("beta_fast") else 32.0,
            beta_slow=number(rope, "beta_slow") if rope.get("beta_slow") else 1.0,
            original_length=integer(rope, "original_max_position_embeddings"),
            attention_factor=_yarn_attention(rope, factor),
            truncate=flag(rope, "truncate") if "truncate" in rope else True,
        )
        read |= {"factor", "beta_fast", "beta_slow", "original_max_position_embeddings", "truncate"}
        read |= {"attention_factor", "mscale", "mscale_all_dim"}
    elif kind != "default":
        raise UnsupportedSetting(f"{where}.rope_type: {kind!r} is not supported, only default, llama3 and yarn")
    refuse_unknown(rope.keys() - read, f"{where}.")
    return theta, scaling


def _yarn_attention(rope: Raw, factor: float) -> float:
    """The scale of cosines and sines, as transformers computes it when the file has none (YaRN's equation 22)."""
    if rope.get("attention_factor") is not None:
        return number(rope, "attention_factor")

    def scale(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(number(rope, "mscale")) / scale(number(rope, "mscale_all_dim"))
    return scale(1.0)


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    scaling = config.rope_scaling
    if scaling is None:
        return None
    raw: dict[str, Any] = {"factor": scaling.factor, "original_max_position_embeddings": scaling.original_length}
    if isinstance(scaling, Llama3Scaling):
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        return raw | {"rope_type": "llama3", "low_freq_factor": low, "high_freq_factor": high}
    raw |= {"rope_type": "yarn", "beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    return raw | {"attention_factor": scaling.attention_factor, "truncate": scaling.truncate}
