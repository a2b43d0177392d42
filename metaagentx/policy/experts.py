"""A mixture of experts in place of a layer's MLP (Qwen3-MoE, arXiv 2505.09388), without a token dropped.

Every pair of a token and one of its active experts is computed, however uneven the load: the pairs are sorted by
expert, and each matrix is one ragged product, in which a run of rows meets its own expert's weights (MegaBlocks,
arXiv 2211.15841). Under a mesh the experts are cut over `tensor`; a device computes the pairs of its experts for the
tokens of its (data, fsdp) shard, and the devices' results are summed.

The loss that balances experts in pretraining is left out: reinforcement learning of these models is run without it.

Letters: B rows, T tokens of a row, N tokens of a device, D d_model, E experts, A active of one token, F d_ff of one.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from metaagentx.mesh import cut, place
from metaagentx.policy.config import Experts
from metaagentx.policy.params import Params

# Contracts the last axes: rows [R, I] and weights [E, O, I], as Hugging Face stores a matrix, give [R, O].
RAGGED = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (2,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[0]
)


def mixture(layer: Params, experts: Experts, x: jax.Array) -> jax.Array:
    """x [B, T, D] -> [B, T, D]. `layer` holds router [E, D], gate and up [E, F, D], down [E, D, F]."""
    weights, chosen = route(layer["router"], experts, x)
    gate, up, down = (place(layer[name], "experts", None, None) for name in ("gate", "up", "down"))
    tokens = cut(("batch", None, None), x.shape)
    if tokens is None:
        return _answer(x, weights, chosen, gate, up, down)
    held = cut(("experts", None, None), gate.shape)
    assert held is not None
    answer = functools.partial(_answer, over=held[0])
    sharded = jax.shard_map(answer, in_specs=(tokens,) * 3 + (held,) * 3, out_specs=tokens)
    return sharded(place(x, "batch", None, None), weights, chosen, gate, up, down)


def route(router: jax.Array, experts: Experts, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights [B, T, A] float32 and numbers [B, T, A] int32 of each token's experts: router [E, D], x [B, T, D]."""
    where = cut(("batch", None, None), (*x.shape[:2], experts.count))
    logits = jnp.einsum("btd,ed->bte", x, router, preferred_element_type=jnp.float32, out_sharding=where)
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), experts.active)
    if experts.normalise:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, chosen


def _answer(
    x: jax.Array,
    weights: jax.Array,
    chosen: jax.Array,
    gate: jax.Array,
    up: jax.Array,
    down: jax.Array,
    over: str | None = None,
) -> jax.Array:
    """What this device's experts add to its tokens, summed over the mesh axis `over` that cuts the experts."""
    held, active = gate.shape[0], chosen.shape[-1]
    if over is not None:
        x, weights, chosen = jax.lax.pcast((x, weights, chosen), over, to="varying")  # gradients are summed over it
        chosen = chosen - held * jax.lax.axis_index(over)
    expert = chosen.reshape(-1)
    expert = jnp.where((expert >= 0) & (expert < held), expert, held)  # another device's pairs come last
    order = jnp.argsort(expert)
    sizes = jnp.bincount(expert, length=held + 1)[:held]
    # Rows past the last group are undefined in a ragged product: zeros go in, and zeros are taken out.
    mine = (jnp.arange(order.size) < jnp.sum(sizes))[:, None]

    rows = jnp.where(mine, x.reshape(-1, x.shape[-1])[order // active], 0)
    product = functools.partial(jax.lax.ragged_dot_general, group_sizes=sizes, ragged_dot_dimension_numbers=RAGGED)
    rows = product(jax.nn.silu(product(rows, gate)) * product(rows, up), down)
    rows = jnp.where(mine, rows, 0)

    pairs = rows[jnp.argsort(order)].reshape(*x.shape[:2], active, x.shape[-1])
    y = jnp.einsum("btad,bta->btd", pairs, weights, preferred_element_type=jnp.float32).astype(x.dtype)
    return y if over is None else jax.lax.psum(y, over)
