"""A mixture of experts in place of a layer's MLP (Qwen3-MoE, arXiv 2505.09388), without a token dropped.

Every pair of a token and one of its active experts is computed, however uneven the load: the pairs are sorted by
expert, and each run of them meets its own expert's matrices (`ragged`). No array is larger than one row for each pair
of a portion of the tokens: long rows are taken in portions, whose insides are recomputed in the backward pass.
Under a mesh the experts are cut over `tensor`: a device computes the pairs of its experts for the tokens of its
(data, fsdp) shard, and the devices' answers are summed.

The loss that balances experts in pretraining is left out: reinforcement learning of these models is run without it.

Letters: B rows, T tokens of a row, N tokens of a device, D d_model, E experts, A active of one token, F d_ff of one.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import PartitionSpec

from metaagentx.mesh import cut, place
from metaagentx.policy.config import Experts
from metaagentx.policy.params import Params
from metaagentx.policy.ragged import product

# Tokens of a portion that an expert gets under an even load. Fewer would read the matrices more often than the tokens,
# and leave matrix units idle at the end of each expert's run; more would take more memory.
EACH = 1024


def mixture(layer: Params, experts: Experts, x: jax.Array, each: int = EACH) -> jax.Array:
    """x [B, T, D] -> [B, T, D]. `layer` holds router [E, D], gate and up [E, F, D], down [E, D, F].

    `each`: as `EACH`; it changes no result.
    """
    weights, chosen = route(layer["router"], experts, x)
    gate, up, down = (place(layer[name], "experts", None, None) for name in ("gate", "up", "down"))
    tokens, held = cut(("batch", None, None), x.shape), cut(("experts", None, None), gate.shape)
    if tokens is None or held is None:
        return _answer(x, weights, chosen, gate, up, down, jnp.zeros(1, jnp.int32), each=each)[0]
    # Each device's answer is a part of a sum, whose parts lie along a new axis: what cuts the experts cuts it.
    devices = jax.sharding.get_abstract_mesh().shape[held[0]] if held[0] else 1
    first = place(jnp.arange(devices, dtype=jnp.int32) * (experts.count // devices), "experts")
    parts = jax.shard_map(
        functools.partial(_answer, each=each),
        in_specs=(tokens, tokens, tokens, held, held, held, PartitionSpec(held[0])),
        out_specs=PartitionSpec(held[0], *tokens),
        check_vma=False,  # kernels do not say over what their results vary
    )(place(x, "batch", None, None), weights, chosen, gate, up, down, first)
    return jnp.sum(parts, axis=0)


def route(router: jax.Array, experts: Experts, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights [B, T, A] float32 and numbers [B, T, A] int32 of each token's experts: router [E, D], x [B, T, D]."""
    where = cut(("batch", None, None), (*x.shape[:2], experts.count))
    logits = jnp.einsum("btd,ed->bte", x, router, preferred_element_type=jnp.float32, out_sharding=where)
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), experts.active)
    if experts.normalise:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, chosen


@struct.dataclass
class Order:
    """How the pairs of N tokens and their A active experts are sorted by expert, those of other devices last."""

    pair: jax.Array  # [N * A] int32: the pair at each place
    place: jax.Array  # [N, A] int32: the place of each pair
    mine: jax.Array  # [N, A] bool: whether its expert is on this device
    sizes: jax.Array  # [E] int32: pairs of each of this device's experts


def sort(chosen: jax.Array, first: jax.Array, count: int) -> Order:
    """The order of pairs for a device that has `count` experts, the first of them number `first`; chosen [N, A]."""
    expert = chosen - first
    mine = (expert >= 0) & (expert < count)
    expert = jnp.where(mine, expert, count).reshape(-1)
    pair = jnp.argsort(expert)
    sizes = jnp.sum(expert[:, None] == jnp.arange(count)[None], axis=0, dtype=jnp.int32)
    return Order(pair=pair, place=jnp.argsort(pair).reshape(chosen.shape), mine=mine, sizes=sizes)


@jax.custom_vjp
def dispatch(x: jax.Array, order: Order) -> jax.Array:
    """Each pair's token: x [N, D] -> [N * A, D]. `collect` is its transpose, and it is that of `collect`."""
    return x[order.pair // order.place.shape[1]]


@jax.custom_vjp
def collect(rows: jax.Array, order: Order) -> jax.Array:
    """The sum of each token's pairs on this device: rows [N * A, D] -> [N, D]."""
    pairs = jnp.where(order.mine[:, :, None], rows[order.place], 0)
    return jnp.sum(pairs, axis=1, dtype=jnp.float32).astype(rows.dtype)


# The transpose of a gather is a scatter, unless one knows that it is a sum of another gather.
dispatch.defvjp(lambda x, order: (dispatch(x, order), order), lambda order, g: (collect(g, order), None))
collect.defvjp(lambda rows, order: (collect(rows, order), order), lambda order, g: (dispatch(g, order), None))


def _answer(
    x: jax.Array,
    weights: jax.Array,
    chosen: jax.Array,
    gate: jax.Array,
    up: jax.Array,
    down: jax.Array,
    first: jax.Array,
    *,
    each: int,
) -> jax.Array:
    """What this device's experts, from number `first` [1] on, add to its tokens: x [b, t, D] -> [1, b, t, D]."""
    tokens = x.reshape(-1, x.shape[-1]), weights.reshape(-1, weights.shape[-1]), chosen.reshape(-1, chosen.shape[-1])
    portion = max(1, each * len(gate) // chosen.shape[-1])
    if len(tokens[0]) <= portion or len(tokens[0]) % portion:
        return _pairs(tokens, gate, up, down, first).reshape(1, *x.shape)
    # Gradients of the matrices are sums over portions: in float32.
    wide = [w.astype(jnp.float32) for w in (gate, up, down)]

    @jax.checkpoint
    def answer(part: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        narrow = [w.astype(x.dtype) for w in wide]
        return _pairs(part, narrow[0], narrow[1], narrow[2], first)

    parts = jax.tree.map(lambda part: part.reshape(-1, portion, part.shape[-1]), tokens)
    return jax.lax.map(answer, parts).reshape(1, *x.shape)


def _pairs(
    tokens: tuple[jax.Array, jax.Array, jax.Array], gate: jax.Array, up: jax.Array, down: jax.Array, first: jax.Array
) -> jax.Array:
    """`_answer` for tokens x [N, D], weights [N, A], chosen [N, A] -> [N, D]."""
    x, weights, chosen = tokens
    order = sort(chosen, first[0], len(gate))
    # Rows of other devices' pairs are undefined from here on: what leaves them, forward or backward, is masked.
    mine = jnp.arange(chosen.size) < jnp.sum(order.sizes)
    scale = jnp.where(mine, weights.reshape(-1).at[order.pair].get(unique_indices=True), 0)
    rows = dispatch(x, order)
    hidden = jax.nn.silu(product(rows, gate, order.sizes)) * product(rows, up, order.sizes)
    hidden = (hidden * scale[:, None]).astype(x.dtype)  # `down` is linear: here there is less to scale
    return collect(product(hidden, down, order.sizes), order)
