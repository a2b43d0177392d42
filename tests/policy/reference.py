"""The forward pass once more, in float64 NumPy, one token pair at a time where it matters: slow and plain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaagentx.policy.config import Experts, Llama3Scaling, ModelConfig, YarnScaling

Array = NDArray[np.float64]


def logits(params: dict[str, Any], config: ModelConfig, tokens: NDArray[np.int32]) -> Array:
    """Logits [T, V] of one unpadded sequence: tokens [T]."""
    layers = {name: np.asarray(w, np.float64) for name, w in params["layers"].items()}
    x = np.asarray(params["embed"], np.float64)[tokens]
    for i in range(config.layers):
        layer = {name: w[i] for name, w in layers.items()}
        x = x + _attention(layer, config, _norm(x, layer["attn_norm"], config))
        y = _norm(x, layer["mlp_norm"], config)
        x = x + (mixture(layer, config.experts, y) if config.experts else _swiglu(y, *_mlp(layer)))
    head = params["embed"] if config.tied_embeddings else params["head"]
    return _norm(x, np.asarray(params["final_norm"], np.float64), config) @ np.asarray(head, np.float64).T


def mixture(layer: dict[str, Array], experts: Experts, x: Array) -> Array:
    """Every expert's answer to every token, and of each token's the few with the largest weights: x [T, D]."""
    weights = np.exp(log_softmax(x @ layer["router"].T))
    active = weights >= np.sort(weights, axis=-1)[:, -experts.active, None]
    weights = np.where(active, weights, 0)
    if experts.normalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    answers = [_swiglu(x, *(w[i] for w in _mlp(layer))) for i in range(experts.count)]
    return sum(weights[:, i, None] * answers[i] for i in range(experts.count))


def log_softmax(x: Array) -> Array:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def _norm(x: Array, scale: Array, config: ModelConfig) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.norm_eps) * scale


def _mlp(layer: dict[str, Array]) -> tuple[Array, Array, Array]:
    return layer["gate"], layer["up"], layer["down"]


def _swiglu(x: Array, gate: Array, up: Array, down: Array) -> Array:
    z = x @ gate.T
    return (z / (1 + np.exp(-z)) * (x @ up.T)) @ down.T


def _attention(layer: dict[str, Array], config: ModelConfig, x: Array) -> Array:
    length, width = len(x), config.head_dim
    q = (x @ layer["q"].T + layer.get("q_bias", 0)).reshape(length, config.heads, width)
    k = (x @ layer["k"].T + layer.get("k_bias", 0)).reshape(length, config.kv_heads, width)
    v = (x @ layer["v"].T + layer.get("v_bias", 0)).reshape(length, config.kv_heads, width)
    if config.qk_norm:
        q, k = _norm(q, layer["q_norm"], config), _norm(k, layer["k_norm"], config)
    y = np.zeros_like(q)
    for head in range(config.heads):
        group = head // (config.heads // config.kv_heads)
        for t in range(length):
            query = _turn(q[t, head], t, config)
            keys = np.stack([_turn(k[s, group], s, config) for s in range(t + 1)])
            weights = np.exp(log_softmax(keys @ query / np.sqrt(width)))
            y[t, head] = weights @ v[: t + 1, group]
    return y.reshape(length, -1) @ layer["o"].T


def _turn(x: Array, position: int, config: ModelConfig) -> Array:
    """Channels i and i + H / 2 as one complex number, turned by the position times the pair's frequency."""
    half = config.head_dim // 2
    angle = position * np.array([frequency(i, config) for i in range(half)])
    scale = config.rope_scaling.attention_factor if isinstance(config.rope_scaling, YarnScaling) else 1
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * angle) * scale
    return np.concatenate([z.real, z.imag])


def frequency(i: int, config: ModelConfig) -> float:
    """Radians per token of one pair of channels, one case after the other."""
    plain, scaling = config.rope_theta ** (-2 * i / config.head_dim), config.rope_scaling
    if scaling is None:
        return plain
    if isinstance(scaling, Llama3Scaling):
        wavelength = 2 * math.pi / plain
        if wavelength < scaling.original_length / scaling.high_freq_factor:
            return plain
        if wavelength > scaling.original_length / scaling.low_freq_factor:
            return plain / scaling.factor
        smooth = scaling.original_length / wavelength - scaling.low_freq_factor
        smooth /= scaling.high_freq_factor - scaling.low_freq_factor
        return (1 - smooth) * plain / scaling.factor + smooth * plain
    ends = [
        config.head_dim * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]
    if scaling.truncate:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], config.head_dim - 1)
    ramp = min(max((i - first) / (last - first), 0), 1)
    return plain / scaling.factor * ramp + plain * (1 - ramp)
