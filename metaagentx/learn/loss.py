"""The pieces of the policy loss: pure functions of per-token arrays, chosen one by one by `LossOptions`.

Every array is [..., T]; nothing here averages: normalisers come with the batch (`pack.Batch.weights`), so that a
loss is a plain sum over tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sequence_mean(values: jax.Array, mask: jax.Array, segments: jax.Array) -> jax.Array:
    """At each token of a row the mean of `values` over the masked tokens of its segment.

    All are [R, T]; segments count from 1 within a row (0: padding). Rows are independent, so they may be sharded.
    """
    size = segments.shape[-1] + 1

    def one(row: jax.Array, ids: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(row, ids, size)[ids]

    masked = mask.astype(values.dtype)
    return jax.vmap(one)(values * masked, segments) / jnp.maximum(jax.vmap(one)(masked, segments), 1)


def token_ratio(logp: jax.Array, old: jax.Array) -> jax.Array:
    """`exp(logp - old)`. Pass `old = stop_gradient(logp)` where a batch is used once: the ratio is then exactly 1."""
    return jnp.exp(logp - old)


def sequence_ratio(logp: jax.Array, old: jax.Array, mask: jax.Array, segments: jax.Array) -> jax.Array:
    """GSPO (arXiv 2507.18071): the exponential of the mean log-ratio of the sequence, at each of its tokens."""
    return jnp.exp(sequence_mean(logp - old, mask, segments))


def surrogate(ratio: jax.Array, advantage: jax.Array, low: float, high: float) -> jax.Array:
    """`min(r A, clip(r, 1 - low, 1 + high) A)`, to be maximised; decoupled bounds as in DAPO (arXiv 2503.14476)."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - low, 1 + high) * advantage)


def clipped(ratio: jax.Array, advantage: jax.Array, low: float, high: float) -> jax.Array:
    """Where the bounds of `surrogate` take the gradient away."""
    return ((ratio > 1 + high) & (advantage > 0)) | ((ratio < 1 - low) & (advantage < 0))


def k1(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """`log p - log q` on samples of p: an unbiased *value* of KL(p || q), of high variance.

    Not a loss: its gradient is that of `log p`, which is zero in expectation.
    """
    return logp - reference


def k2(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """`(log p - log q)^2 / 2` on samples of p: a biased value of KL(p || q).

    As a loss it is the right one: its expected gradient is exactly that of KL(p || q).
    """
    return 0.5 * (logp - reference) ** 2


def k3(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """`q/p - 1 - log(q/p)` on samples of p: an unbiased value of KL(p || q), of low variance and never negative.

    As a loss its expected gradient is that of the other direction, KL(q || p).
    """
    gap = reference - logp
    return jnp.expm1(gap) - gap


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def importance_weight(logp: jax.Array, sampler: jax.Array, cap: float) -> jax.Array:
    """Truncated importance weight `min(p_trainer / p_sampler, cap)`, without gradient. `cap` 0 is off: ones.

    `sampler` is the log-probability that a token was really drawn with: after top-k and the like, that of the
    renormalised distribution. Its weights then average to the mass that was left.
    """
    if cap == 0:
        return jnp.ones_like(logp)
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(logp - sampler), cap))
