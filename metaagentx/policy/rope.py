"""Rotary positions (arXiv 2104.09864), plain or stretched beyond the context of the pretraining."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from metaagentx.policy.config import Llama3Scaling, ModelConfig, YarnScaling

Rotation = tuple[jax.Array, jax.Array]  # cosines and sines, each [B, 1, T, H / 2] float32
Frequencies = NDArray[np.float64]  # [H / 2], radians per token


def rotary(positions: jax.Array, config: ModelConfig) -> Rotation:
    """Rotation of each position's pairs of channels: positions [B, T]."""
    frequency = frequencies(config).astype(np.float32)
    angle = positions[:, None, :, None].astype(jnp.float32) * frequency[None, None, None]
    scale = config.rope_scaling.attention_factor if isinstance(config.rope_scaling, YarnScaling) else 1.0
    return jnp.cos(angle) * scale, jnp.sin(angle) * scale


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """x [B, N, T, H]; channel i pairs with channel i + H / 2, as in Hugging Face's Llama."""
    cos, sin = rotation
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def frequencies(config: ModelConfig) -> Frequencies:
    """How far each pair of channels turns per token; computed once, on the host, in float64."""
    half, scaling = config.head_dim // 2, config.rope_scaling
    plain = config.rope_theta ** (-np.arange(half) / half)
    if scaling is None:
        return plain
    if isinstance(scaling, Llama3Scaling):
        return _llama3(plain, scaling)
    return _yarn(plain, scaling, config)


def _llama3(plain: Frequencies, scaling: Llama3Scaling) -> Frequencies:
    """Llama 3.1 (arXiv 2407.21783): by how often a pair turns within the original context."""
    turns = scaling.original_length * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return plain * (kept + (1 - kept) / scaling.factor)


def _yarn(plain: Frequencies, scaling: YarnScaling, config: ModelConfig) -> Frequencies:
    """YaRN's "NTK by parts" (arXiv 2309.00071, section 3.2), its ramp over channels as published code has it."""

    def channel(turns: float) -> float:
        """The pair that turns so often within the original context."""
        ratio = math.log(scaling.original_length / (2 * math.pi * turns)) / math.log(config.rope_theta)
        return config.head_dim / 2 * ratio

    first, last = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.head_dim - 1)
    # An empty ramp is a step, 0.001 of a channel wide.
    kept = 1 - np.clip((np.arange(len(plain)) - first) / ((last - first) or 0.001), 0.0, 1.0)
    return plain * (kept + (1 - kept) / scaling.factor)
