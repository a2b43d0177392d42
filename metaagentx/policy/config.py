"""The constants of one decoder-only transformer. None has a default: a wrong default trains the wrong model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

# What a backward pass recomputes: see `model.forward`.
Remat = Literal["none", "dots", "attention", "full"]
# How a row's attention over itself is computed: see `attention`; and one token's over its slot's cache: see `cache`.
Kernel = Literal["dense", "blocked", "strips", "splash", "cudnn", "triton"]
DecodeKernel = Literal["dense", "paged", "cudnn"]
KernelChoice = Literal["auto", Kernel]  # "auto": what suits the platform, see `kernels`
DecodeChoice = Literal["auto", DecodeKernel]


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's stretched rotary positions: low frequencies are divided, high ones kept, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int  # context of the pretraining

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and 0 < self.low_freq_factor < self.high_freq_factor and self.original_length >= 1):
            raise ValueError(f"model.rope_scaling needs factor >= 1, 0 < low < high and a length, not {self}")


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): a ramp between divided and kept frequencies, and a temperature of attention."""

    factor: float
    beta_fast: float
    beta_slow: float
    original_length: int
    attention_factor: float  # cosines and sines are multiplied by it
    truncate: bool  # whether the ends of the ramp are rounded outward to whole channels

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and self.beta_fast >= self.beta_slow > 0 < self.attention_factor):
            raise ValueError(f"model.rope_scaling needs factor >= 1, beta_fast >= beta_slow > 0, not {self}")
        if self.original_length < 1:
            raise ValueError(f"model.rope_scaling.original_length must be at least 1, not {self.original_length}")


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in place of every layer's MLP (Qwen3-MoE); `d_ff` is one expert's."""

    count: int
    active: int  # experts of one token
    d_ff: int
    normalise: bool  # whether the weights of a token's active experts are scaled to sum to 1

    def __post_init__(self) -> None:
        for name in ("count", "active", "d_ff"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.experts.{name} must be at least 1, not {getattr(self, name)}")
        if self.active > self.count:
            raise ValueError(f"model.experts.active ({self.active}) must not exceed count ({self.count})")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Llama/Qwen block: RMSNorm, rotary positions, grouped-query attention, SwiGLU or a mixture of experts."""

    vocab_size: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int  # of a dense MLP; unused with `experts`
    rope_theta: float
    rope_scaling: Llama3Scaling | YarnScaling | None
    norm_eps: float
    qkv_bias: bool  # Qwen2
    qk_norm: bool  # RMSNorm on each head's query and key (Qwen3)
    experts: Experts | None
    tied_embeddings: bool
    max_length: int  # longest sequence, in tokens
    dtype: str  # "float32" | "bfloat16": of weights and activations

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "layers", "heads", "kv_heads", "head_dim", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, not {getattr(self, name)}")
        if self.rope_theta <= 1 or self.norm_eps <= 0:
            raise ValueError(
                f"model.rope_theta ({self.rope_theta}) must be above 1, norm_eps ({self.norm_eps}) above 0"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim must be even for rotary positions, not {self.head_dim}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model.dtype must be 'float32' or 'bfloat16', not {self.dtype!r}")


LINEAR = ("q", "k", "v", "o", "gate", "up", "down")  # what `model.linear` applies; with experts, the first four


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Which matrices are adapted, and how."""

    rank: int = 16
    alpha: float = 32.0  # the update is scaled by alpha / rank
    targets: str = "|".join(LINEAR)  # a regular expression for whole names under "layers"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank must be at least 1, not {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha must be above 0 and finite, not {self.alpha}")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ValueError(f"lora.targets must be a regular expression, not {self.targets!r}: {error}") from None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank
