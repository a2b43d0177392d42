"""Log-probabilities and entropies of tokens, without ever holding the logits of a whole batch."""

from __future__ import annotations

from functools import partial

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
    params: Params,
    config: ModelConfig,
    hidden: jax.Array,
    targets: jax.Array,
    chunk: int,
    with_entropy: bool = True,
    wanted: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target under the plain distribution (temperature 1), and that distribution's entropy.

    Logits exist for `chunk` positions of each row at a time, and are recomputed in the backward pass. Rows begin with
    what is `wanted`, while this is computed, and end where no row has any, to a quarter of their length.

    Args:
      hidden: [B, T, D], as `model.forward` returns it.
      targets: [B, T] int32.
      chunk: positions at a time, at least 1.
      with_entropy: without it the entropies are zeros, and cost nothing.
      wanted: [B, T] bool, whose results are read; None: all.

    Returns:
      (log-probabilities, entropies in nats), both [B, T] float32; undefined where not `wanted`.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    if wanted is not None:
        wanted = place(wanted, "batch", None)
        order = jnp.argsort(~wanted, axis=1, stable=True)
        hidden = jnp.take_along_axis(place(hidden, "batch", None, None), order[:, :, None], axis=1)
        targets, wanted = (jnp.take_along_axis(place(x, "batch", None), order, axis=1) for x in (targets, wanted))
    rows, length, _ = hidden.shape
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    head = "embed" if config.tied_embeddings else "head"
    params = {head: gather(params[head], hidden)}

    def cut_up(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, chunks * chunk - length), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(rows, chunks, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def score(h: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = unembed(params, config, h)
        # Select and sum instead of a gather: it fuses, and works where the vocabulary is cut over devices.
        hit = jnp.arange(config.vocab_size)[None, None] == target[:, :, None]
        total = jax.nn.logsumexp(logits, axis=-1)
        logprob = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1) - total
        if not with_entropy:
            return logprob, jnp.zeros_like(logprob)
        p = jnp.exp(logits - total[:, :, None])
        # What has probability 0 adds nothing; on a CPU the condition also keeps XLA from a slow form of the sum.
        return logprob, total - jnp.sum(jnp.where(p > 0, p * logits, 0.0), axis=-1)

    def first(count: int, parts: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        """The results of so many chunks, and zeros for the rest."""
        _, found = jax.lax.scan(lambda _, part: (None, score(*part)), None, tuple(x[:count] for x in parts))
        return tuple(jnp.pad(x, ((0, chunks - count), (0, 0), (0, 0))) for x in found)

    with jax.named_scope("logprobs"):
        parts = cut_up(place(hidden, "batch", None, None)), cut_up(place(targets, "batch", None))
        if wanted is None:
            logprob, entropy = first(chunks, parts)
        else:
            # One choice for all, not one a chunk: each would add zeros to the gradient of the whole vocabulary.
            counts = sorted({-(-chunks * quarter // 4) for quarter in (1, 2, 3, 4)})
            most = jnp.max(jnp.sum(wanted, axis=1))
            which = jnp.sum(most > jnp.array([count * chunk for count in counts[:-1]], jnp.int32))
            logprob, entropy = jax.lax.switch(which, [partial(first, count) for count in counts], parts)

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1).reshape(rows, chunks * chunk)[:, :length]
        return x if wanted is None else jnp.take_along_axis(x, jnp.argsort(order, axis=1), axis=1)

    return join(logprob), join(entropy)
