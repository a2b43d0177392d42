"""Drawing tokens: one uniform number per call and position, whatever else is in the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metaagentx.mesh import place


def call_keys(ids: jax.Array) -> jax.Array:
    """Random keys [A] of calls from their ids [A, 6] uint32: (seed, step, question, design, execution, call)."""

    def key(row: jax.Array) -> jax.Array:
        base = jax.random.key(0)
        for column in range(ids.shape[1]):
            base = jax.random.fold_in(base, row[column])
        return base

    return jax.vmap(key)(ids)


def draw(
    logits: jax.Array, temperature: jax.Array, keys: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Next tokens and their log-probabilities.

    A token is drawn from softmax(logits / temperature) through the inverse of its distribution function, by one
    uniform number from (key, position); temperature 0 takes the most likely token. The log-probability is that of
    the plain distribution, temperature 1, whatever the token was drawn from: it is what a trainer compares with.

    Args:
      logits: [B, V] float32.
      temperature: [B] float32, at least 0.
      keys: [B] random keys.
      positions: [B] int32, the token's position in its sequence.

    Returns:
      (tokens [B] int32, log-probabilities [B] float32), on a mesh replicated.
    """
    # On a mesh each device draws for its own rows, and needs their whole distribution.
    logits = place(logits, "batch", None)
    temperature, keys, positions = (place(x, "batch") for x in (temperature, keys, positions))
    greedy = temperature == 0
    scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None]
    uniform = jax.vmap(lambda key, position: jax.random.uniform(jax.random.fold_in(key, position)))(keys, positions)
    below = jnp.cumsum(jax.nn.softmax(scaled, axis=-1), axis=-1)
    # Scaled by the last sum, so that rounding never leaves the threshold above all of them.
    sampled = jnp.sum(below <= uniform[:, None] * below[:, -1:], axis=-1)
    best = jnp.argmax(logits, axis=-1)
    tokens = jnp.minimum(jnp.where(greedy, best, sampled), logits.shape[-1] - 1).astype(jnp.int32)
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), tokens[:, None], axis=-1)[:, 0]
    return place(tokens, None), place(logprobs, None)
