"""How far sampling with weights in 8 bits is from the policy.

    python -m benchmarks.eight_bits

SmolLM2-135M-Instruct reads a recorded prompt; at every position one token is drawn from the distribution of the weights
in 8 bits, and its log-probability compared with that of the float32 weights.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from benchmarks.workload import read_workload
from metaagentx.policy.hub import find_smollm2
from metaagentx.policy.load import load
from metaagentx.policy.model import forward, unembed
from metaagentx.policy.params import Params
from metaagentx.policy.pretrained_config import read_config
from metaagentx.policy.quantise import in_eight_bits


def gap() -> dict[str, float]:
    """Mean and maximum of |log-probability gap| at drawn tokens, and KL(8 bits || float32), both per position."""
    path = find_smollm2()
    config = read_config(path, "float32")
    params = load(path, config)
    tokens = np.array([max((call.text for call in read_workload(1, 1.0)), key=len)], np.int32)
    positions, segments = np.arange(tokens.shape[1], dtype=np.int32)[None], np.ones_like(tokens)

    @jax.jit
    def log_probabilities(params: Params) -> jax.Array:
        states = forward(params, config, tokens, positions, segments)
        return jax.nn.log_softmax(unembed(params, config, states)[0].astype(jnp.float32))

    exact, rounded = log_probabilities(params), log_probabilities(in_eight_bits(config, params))
    drawn = jax.random.categorical(jax.random.key(0), rounded)[:, None]
    gaps = jnp.abs(jnp.take_along_axis(rounded - exact, drawn, axis=-1))
    kl = jnp.sum(jnp.exp(rounded) * (rounded - exact), axis=-1)
    return {
        "positions": tokens.shape[1],
        "gap_mean": float(gaps.mean()),
        "gap_max": float(gaps.max()),
        "kl_mean": float(kl.mean()),
    }


if __name__ == "__main__":
    Console().print(gap())
