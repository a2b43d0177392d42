"""The one table of a model's weights: initialisation, sharding, loading and adapters all read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.nn import initializers

from metaagentx.mesh import Axes
from metaagentx.policy.config import ModelConfig

Dim = tuple[str | None, int]  # what a dimension means (see `mesh.RULES`), and its size


@dataclass(frozen=True, slots=True)
class Spec:
    """One array of weights. Matrices are [out, in], as Hugging Face stores them; layers are stacked in front."""

    shape: tuple[int, ...]
    axes: Axes  # what each dimension means: keys of `mesh.RULES`, or None
    hf_name: str  # its name in a Hugging Face checkpoint; "{}" stands for the layer's number, a second for the expert's
    init: Callable[..., jax.Array]  # (key, shape, dtype) -> array


def table(config: ModelConfig) -> dict[str, Any]:
    """Nested dict of `Spec`s, of the same structure as the weights."""
    layers, d = config.layers, config.d_model
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim

    def norm(name: str, size: int) -> Spec:
        return Spec((layers, size), ("layers", "norm"), f"model.layers.{{}}.{name}.weight", initializers.ones)

    def matrix(name: str, out: Dim, in_: Dim, gain: float = 1.0, experts: int | None = None) -> Spec:
        stack: list[Dim] = [("layers", layers)]
        if experts is not None:
            stack.append(("experts", experts))
        axes, shape = zip(*stack, out, in_, strict=True)
        batch = tuple(range(len(stack)))
        init = initializers.variance_scaling(gain, "fan_in", "normal", in_axis=-1, out_axis=-2, batch_axis=batch)
        return Spec(shape, axes, f"model.layers.{{}}.{name}.weight", init)

    def bias(name: str, axis: str, size: int) -> Spec:
        return Spec((layers, size), ("layers", axis), f"model.layers.{{}}.{name}.bias", initializers.zeros)

    vocabulary = initializers.normal(d**-0.5)
    residual = 0.5 / layers  # 2 * layers branches are summed: the residual stream keeps its variance (GPT-2)
    mlp, count, d_ff = "mlp", None, config.d_ff
    if config.experts is not None:
        mlp, count, d_ff = "mlp.experts.{}", config.experts.count, config.experts.d_ff
    specs: dict[str, Any] = {
        "embed": Spec((config.vocab_size, d), ("vocab", "embed"), "model.embed_tokens.weight", vocabulary),
        "layers": {
            "attn_norm": norm("input_layernorm", d),
            "q": matrix("self_attn.q_proj", ("heads", q), ("embed", d)),
            "k": matrix("self_attn.k_proj", ("kv_heads", kv), ("embed", d)),
            "v": matrix("self_attn.v_proj", ("kv_heads", kv), ("embed", d)),
            "o": matrix("self_attn.o_proj", ("embed", d), ("heads", q), residual),
            "mlp_norm": norm("post_attention_layernorm", d),
            "gate": matrix(f"{mlp}.gate_proj", ("ff", d_ff), ("embed", d), experts=count),
            "up": matrix(f"{mlp}.up_proj", ("ff", d_ff), ("embed", d), experts=count),
            "down": matrix(f"{mlp}.down_proj", ("embed", d), ("ff", d_ff), residual, count),
        },
        "final_norm": Spec((d,), ("norm",), "model.norm.weight", initializers.ones),
    }
    if config.experts is not None:
        specs["layers"]["router"] = matrix("mlp.gate", (None, config.experts.count), ("embed", d))
    if config.qkv_bias:
        specs["layers"]["q_bias"] = bias("self_attn.q_proj", "heads", q)
        specs["layers"]["k_bias"] = bias("self_attn.k_proj", "kv_heads", kv)
        specs["layers"]["v_bias"] = bias("self_attn.v_proj", "kv_heads", kv)
    if config.qk_norm:
        specs["layers"]["q_norm"] = norm("self_attn.q_norm", config.head_dim)
        specs["layers"]["k_norm"] = norm("self_attn.k_norm", config.head_dim)
    if not config.tied_embeddings:
        specs["head"] = Spec((config.vocab_size, d), ("vocab", "embed"), "lm_head.weight", vocabulary)
    return specs
