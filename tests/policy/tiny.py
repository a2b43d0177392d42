"""The smallest models that have every part: two layers, two query heads to a key-value head."""

from __future__ import annotations

import dataclasses

from metaagentx.policy.config import Experts, Llama3Scaling, ModelConfig, YarnScaling


def config(qk_norm: bool = True, tied: bool = True, layers: int = 2, dtype: str = "float32") -> ModelConfig:
    return ModelConfig(
        vocab_size=48,
        d_model=32,
        layers=layers,
        heads=4,
        kv_heads=2,
        head_dim=8,
        d_ff=48,
        rope_theta=10_000.0,
        rope_scaling=None,
        norm_eps=1e-6,
        qkv_bias=False,
        qk_norm=qk_norm,
        experts=None,
        tied_embeddings=tied,
        max_length=64,
        dtype=dtype,
    )


LLAMA = config(qk_norm=False, tied=False)
LLAMA3 = dataclasses.replace(LLAMA, rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, original_length=16))
QWEN2 = dataclasses.replace(LLAMA, qkv_bias=True, tied_embeddings=True)
QWEN3 = config()
# A base that makes the ramp three channels long.
YARN = dataclasses.replace(
    QWEN3, rope_theta=100.0, rope_scaling=YarnScaling(4.0, 4.0, 1.0, 16, attention_factor=1.1386, truncate=True)
)
QWEN3_MOE = dataclasses.replace(config(tied=False), experts=Experts(count=8, active=3, d_ff=16, normalise=True))
FAMILIES = {
    "llama": LLAMA,
    "llama3": LLAMA3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "yarn": YARN,
    "qwen3_moe": QWEN3_MOE,
}
# Every family, and with them every pair of norms on queries and keys or not, and embeddings tied or not.
CONFIGS = {
    **FAMILIES,
    "tied": config(qk_norm=False, tied=True),
    "qk_norm": config(qk_norm=True, tied=False),
}
