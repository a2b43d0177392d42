"""The smallest model that has every part: two layers, two query heads to a key-value head."""

from __future__ import annotations

from metaagentx.policy.config import ModelConfig


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
