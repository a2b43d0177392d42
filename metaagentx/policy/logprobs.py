"""Log-probabilities and entropies of tokens, without ever holding the logits of a whole batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metaagentx.mesh import gather, place
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.model import unembed
from metaagentx.policy.params import Params


def wide_vocabulary(params: Params) -> Params:
    """The weights with the matrices of the vocabulary in float32, to be differentiated.

    Their gradients are sums over every token of a batch, and over its chunks: in bfloat16 the terms of a frequent
    token round to nothing against their sum. The products still are those of the activations' dtype.
    """
    return {**params, **{name: params[name].astype(jnp.float32) for name in ("embed", "head") if name in params}}


def token_logprobs(
    params: Params, config: ModelConfig, hidden: jax.Array, targets: jax.Array, chunk: int, with_entropy: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target under the plain distribution (temperature 1), and that distribution's entropy.

    Logits exist for `chunk` positions of each row at a time, and are recomputed in the backward pass.

    Args:
      hidden: [B, T, D], as `model.forward` returns it.
      targets: [B, T] int32.
      chunk: positions at a time, at least 1.
      with_entropy: without it the entropies are zeros, and cost nothing.

    Returns:
      (log-probabilities, entropies in nats), both [B, T] float32.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    rows, length, _ = hidden.shape
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    head = "embed" if config.tied_embeddings else "head"
    params = {head: gather(params[head], hidden)}

    def cut_up(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, chunks * chunk - length), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(rows, chunks, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def score(_: None, part: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        h, target = part
        logits = unembed(params, config, h)
        # Select and sum instead of a gather: it fuses, and works where the vocabulary is cut over devices.
        hit = jnp.arange(config.vocab_size)[None, None] == target[:, :, None]
        total = jax.nn.logsumexp(logits, axis=-1)
        logprob = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1) - total
        if not with_entropy:
            return None, (logprob, jnp.zeros_like(logprob))
        expected = jnp.sum(jnp.exp(logits - total[:, :, None]) * logits, axis=-1)
        return None, (logprob, total - expected)

    with jax.named_scope("logprobs"):
        parts = cut_up(place(hidden, "batch", None, None)), cut_up(place(targets, "batch", None))
        _, (logprob, entropy) = jax.lax.scan(score, None, parts)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(rows, chunks * chunk)[:, :length]

    return join(logprob), join(entropy)
