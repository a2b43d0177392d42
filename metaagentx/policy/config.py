"""The constants of one decoder-only transformer. None has a default: a wrong default trains the wrong model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Llama/Qwen3 block: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    vocab_size: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float
    norm_eps: float
    qk_norm: bool  # RMSNorm on each head's query and key (Qwen3)
    tied_embeddings: bool
    max_length: int  # longest sequence, in tokens
    dtype: str  # "float32" | "bfloat16": of weights and activations

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "layers", "heads", "kv_heads", "head_dim", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim must be even for rotary positions, not {self.head_dim}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model.dtype must be 'float32' or 'bfloat16', not {self.dtype!r}")
