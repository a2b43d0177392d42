"""Drawing tokens: one uniform number per call and position, whatever else is in the batch.

Letters: B rows, V vocabulary, N rows of a table of biases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metaagentx.mesh import cut, place, reshape
from metaagentx.rollout.options import SamplingOptions

BLOCK = 256  # tokens summed together before a running sum: sums over all of V one by one are slow, and less exact
HEAD = 128  # most likely tokens looked at first: most truncations end among them

Array: TypeAlias = Any  # of NumPy as made, of JAX under jit


class Knobs(struct.PyTreeNode):
    """How B rows draw. Order as in transformers' `generate`: bias, then temperature, then top-k, then top-p."""

    temperature: Array  # [B] float32, 0 is greedy
    top_k: Array  # [B] int32, draw from so many most likely tokens; 0: from all
    top_p: Array  # [B] float32, draw from the fewest most likely tokens of at least this mass; 1: from all
    bias: Array  # [B] int32, a row of the table that is added to the logits; 0: its row of zeros

    @classmethod
    def of(cls, sampling: Sequence[SamplingOptions], bias: Sequence[int], rows: int) -> Knobs:
        """Those of some calls as arrays of NumPy, in the first of so many rows."""
        rest = rows - len(sampling)
        return cls(
            np.array([*(s.temperature for s in sampling), *(1.0,) * rest], np.float32),
            np.array([*(s.top_k for s in sampling), *(0,) * rest], np.int32),
            np.array([*(s.top_p for s in sampling), *(1.0,) * rest], np.float32),
            np.array([*bias, *(0,) * rest], np.int32),
        )


def call_keys(ids: jax.Array) -> jax.Array:
    """Random keys [A] of calls from their ids [A, 6] uint32: (seed, step, question, design, execution, call)."""

    def key(row: jax.Array) -> jax.Array:
        base = jax.random.key(0)
        for column in range(ids.shape[1]):
            base = jax.random.fold_in(base, row[column])
        return base

    return jax.vmap(key)(ids)


def draw(
    logits: jax.Array,
    knobs: Knobs,
    keys: jax.Array,
    positions: jax.Array,
    biases: jax.Array | None,
    truncated: bool,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Next tokens, their log-probabilities, and by how much these differ from those that they were drawn with.

    A token is drawn through the inverse of its distribution function, by one uniform number from (key, position);
    temperature 0 takes the most likely token. The log-probability is that of the plain distribution (temperature 1, no
    bias, all tokens), whatever the token was drawn from: it is what a trainer compares with.

    `kept` is the plain log-probability minus the one that the token was drawn with. Under top-k, top-p and masks that
    is the log of the plain mass of the tokens that could be drawn, the same for each of them; the mean of exp(kept)
    over draws is that mass under any knobs.

    Args:
      logits: [B, V] float32.
      knobs: of the rows.
      keys: [B] random keys.
      positions: [B] int32, the token's position in its sequence.
      biases: [N, V] float32, added to the logits of the rows that name them, -inf: never drawn; None: there are none.
      truncated: whether any row may have a top_k or top_p; if not, these are not read.

    Returns:
      (tokens [B] int32, log-probabilities [B] float32, kept [B] float32, or None if neither truncated nor biased), on
      a mesh replicated.
    """
    # On a mesh each device draws for its own rows, and needs their whole distribution.
    logits = place(logits, "batch", None)
    knobs, keys, positions = jax.tree.map(lambda x: place(x, "batch"), (knobs, keys, positions))
    uniform = jax.vmap(lambda key, position: jax.random.uniform(jax.random.fold_in(key, position)))(keys, positions)

    biased = logits
    if biases is not None:
        biased += biases.at[knobs.bias].get(out_sharding=cut(("batch", None), logits.shape))
    best = jnp.max(biased, axis=-1, keepdims=True)
    # At temperature 0 so steep that only the best have mass, of which a uniform number of 0 takes the first. Without a
    # `where` over the vocabulary, which keeps XLA from vectorising the exponential on a CPU.
    slope = 1 / jnp.maximum(knobs.temperature, jnp.finfo(jnp.float32).tiny)[:, None]
    mass = jnp.exp((biased - best) * slope)
    if truncated:
        mass = truncate(mass, knobs.top_k, knobs.top_p)
    tokens, total = pick(mass, jnp.where(knobs.temperature == 0, 0.0, uniform))

    def of_token(values: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, tokens[:, None], axis=-1)[:, 0]

    logprobs, kept = of_token(logits) - jax.nn.logsumexp(logits, axis=-1), None
    if truncated or biases is not None:
        kept = place(logprobs - (of_token((biased - best) * slope) - jnp.log(total)), None)
    return place(tokens, None), place(logprobs, None), kept


def pick(mass: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An index of each row of mass [B, V], at its share `uniform` [B] in [0, 1) of the total, and the totals [B].

    The sums of blocks say in which one to look. An index without mass is never taken.
    """
    rows, vocabulary = mass.shape
    count = -(-vocabulary // BLOCK)
    padded = jnp.pad(mass, ((0, 0), (0, count * BLOCK - vocabulary)))
    blocks = reshape(padded, (rows, count, BLOCK), ("batch", None, None))
    block, share, total = inverse(jnp.sum(blocks, axis=-1), uniform)
    within, _, _ = inverse(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], share)
    return block * BLOCK + within, total


def inverse(mass: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each row [B, K] the first index whose running sum exceeds `share` [B] of the total.

    Returns:
      (indices [B] int32, at what share of their own mass that is [B] in [0, 1), totals [B]).
    """
    # Sums of equal masses may differ by rounding, so that one without mass could seem to add some.
    sums = jnp.where(mass > 0, jnp.cumsum(mass, axis=-1), 0)
    total = jnp.max(sums, axis=-1)
    goal = share * total
    index = jnp.argmax(sums > goal[:, None], axis=-1).astype(jnp.int32)
    reached, own = (jnp.take_along_axis(x, index[:, None], axis=-1)[:, 0] for x in (sums, mass))
    inside = (goal - (reached - own)) / own
    # One ulp below the largest of these, a share of a total would be rounded to the total.
    return index, jnp.clip(inside, 0, 1 - 2.0**-23), total


def truncate(mass: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    """mass [B, V], at most 1, with 0 for what top-k and then top-p leave out; see `Knobs`.

    Tokens of equal mass stay or go together. A row's result depends on that row alone.
    """
    vocabulary = mass.shape[1]
    head = jax.lax.top_k(mass, min(HEAD, vocabulary))[0]  # [B, HEAD], falling

    def rank(index: jax.Array) -> jax.Array:
        return jnp.take_along_axis(head, jnp.minimum(index, head.shape[1] - 1)[:, None], axis=-1)[:, 0]

    def otherwise(far: jax.Array, found: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
        return jax.lax.cond(jnp.any(far), lambda: jnp.where(far, search(enough, found), found), lambda: found)

    def count(least: jax.Array) -> jax.Array:
        return jnp.sum(mass >= least, axis=-1) >= top_k

    limited = (top_k > 0) & (top_k < vocabulary)
    least = otherwise(limited & (top_k > head.shape[1]), rank(top_k - 1), count)
    least = jnp.where(limited, least, 0)[:, None]
    mass, head = jnp.where(mass >= least, mass, 0), jnp.where(head >= least, head, 0)

    def weight(least: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(mass >= least, mass, 0), axis=-1) >= goal

    goal, sums = top_p * jnp.sum(mass, axis=-1), jnp.cumsum(head, axis=-1)
    limited, short = top_p < 1, sums < goal[:, None]
    least = otherwise(limited & short[:, -1], rank(jnp.sum(short, axis=-1)), weight)
    return jnp.where(mass >= jnp.where(limited, least, 0)[:, None], mass, 0)


def search(enough: Callable[[jax.Array], jax.Array], like: jax.Array) -> jax.Array:
    """For each row of `like` [B] the largest float32 in [0, 1] of which, as [B, 1], `enough` [B] holds.

    As bits these are integers in the same order: their range is halved 30 times. What is enough at a number is so at
    all below, and at 0 always.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low + 1) // 2
        good = enough(jax.lax.bitcast_convert_type(middle, jnp.float32)[:, None])
        return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

    zero = jnp.zeros_like(like, jnp.int32)
    one = jax.lax.bitcast_convert_type(jnp.ones_like(like), jnp.int32)
    low, _ = jax.lax.fori_loop(0, 30, halve, (zero, one))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
