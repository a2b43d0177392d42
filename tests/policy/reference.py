"""The forward pass once more, in float64 NumPy, one token pair at a time where it matters: slow and plain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaagentx.policy.config import ModelConfig

Array = NDArray[np.float64]


def logits(params: dict[str, Any], config: ModelConfig, tokens: NDArray[np.int32]) -> Array:
    """Logits [T, V] of one unpadded sequence: tokens [T]."""
    layers = {name: np.asarray(w, np.float64) for name, w in params["layers"].items()}
    x = np.asarray(params["embed"], np.float64)[tokens]
    for i in range(config.layers):
        layer = {name: w[i] for name, w in layers.items()}
        x = x + _attention(layer, config, _norm(x, layer["attn_norm"], config))
        y = _norm(x, layer["mlp_norm"], config)
        gate = y @ layer["gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ layer["up"].T)) @ layer["down"].T
    head = params["embed"] if config.tied_embeddings else params["head"]
    return _norm(x, np.asarray(params["final_norm"], np.float64), config) @ np.asarray(head, np.float64).T


def log_softmax(x: Array) -> Array:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def _norm(x: Array, scale: Array, config: ModelConfig) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.norm_eps) * scale


def _attention(layer: dict[str, Array], config: ModelConfig, x: Array) -> Array:
    length, width = len(x), config.head_dim
    q = (x @ layer["q"].T).reshape(length, config.heads, width)
    k = (x @ layer["k"].T).reshape(length, config.kv_heads, width)
    v = (x @ layer["v"].T).reshape(length, config.kv_heads, width)
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
    """Channels i and i + H / 2 as one complex number, turned by position * theta ** (-2 i / H)."""
    half = config.head_dim // 2
    angle = position * config.rope_theta ** (-2 * np.arange(half) / config.head_dim)
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag])
