"""The cache of TPUs: decoding by the ragged paged attention kernel that ships with JAX, which reads what a slot holds.

The kernel wants pages of tokens [pages, page, 2 K, H], keys and values of a head side by side, and a table of each
slot's pages. A slot's tokens are one run here, so that its pages are one run too: slot s owns pages s n .. s n + n - 1,
and forking a slot copies tokens.

Letters: S slots, C capacity, U rows, P their length, K key-value heads, N query heads, G query heads of one, H
head_dim; K' and H' are K and H with padding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from metaagentx.mesh import cut, place, reshape
from metaagentx.policy.attention import LANES, KeyValue
from metaagentx.policy.config import ModelConfig

PAGE = 128  # tokens of a page
PAGES = 4  # of one block: what the kernel reads is rounded up to whole blocks
QUERIES = 8  # slots of one block of queries: every slot's keys are multiplied with all of the block's queries, so few
VMEM = 32 * 2**20  # bytes that the kernel may use on the chip; two blocks of 8 heads of 128 in bfloat16 are 4 MiB

KEPT = ("batch", None, "kv_heads", None)  # what the axes of a layer's tokens mean
Kernel = Callable[..., jax.Array]  # with the signature of `ragged_paged_attention`


class Layer(struct.PyTreeNode):
    """Keys and values of one layer: those of head h are at 2 h and 2 h + 1, and what pads is zero."""

    tokens: jax.Array  # [S, C rounded up to pages, 2 K', H']
    kv_heads: int = struct.field(pytree_node=False)
    head_dim: int = struct.field(pytree_node=False)


def tiled(kv_heads: int) -> int:
    """The fewest heads, at least `kv_heads`, whose keys and values fill whole tiles of a TPU's memory."""
    return next((heads for heads in (1, 2, 4, 8) if heads >= kv_heads), -(-kv_heads // 8) * 8)


def refusal(config: ModelConfig, tensor: int) -> str | None:
    """Why the kernel cannot serve a model whose heads are cut over `tensor` devices; None if it can."""
    heads, group = config.kv_heads, config.heads // config.kv_heads
    if tensor > 1 and (heads % tensor or tiled(heads) != heads or tiled(heads // tensor) != heads // tensor):
        return f"{heads} key-value heads on {tensor} devices of mesh.tensor are no whole tiles on each"
    if config.dtype == "float32" and group == 1 and heads // tensor > 4:
        return f"blocks of 4 of {heads // tensor} query heads in float32 are no whole tiles"
    return None


def empty(config: ModelConfig, slots: int, capacity: int) -> Layer:
    """Zeros, on a mesh cut over slots and key-value heads."""
    shape = (
        slots,
        -(-capacity // PAGE) * PAGE,
        2 * tiled(config.kv_heads),
        -(-config.head_dim // LANES) * LANES,
    )
    tokens = jnp.zeros(shape, config.dtype, out_sharding=cut(KEPT, shape))
    return Layer(tokens, config.kv_heads, config.head_dim)


def read(layer: Layer, source: jax.Array, width: int) -> KeyValue:
    """The first `width` positions of the slots `source` [U], each [U, K, width, H]."""
    kept = layer.tokens
    shape = (source.shape[0], width, *kept.shape[2:])
    rows = kept.at[source, :width].get(out_sharding=cut((None, *KEPT[1:]), shape))
    pairs = reshape(rows, (*shape[:2], shape[2] // 2, 2, shape[3]), (None, None, "kv_heads", None, None))
    k, v = pairs[..., 0, :].swapaxes(1, 2), pairs[..., 1, :].swapaxes(1, 2)
    return k[:, : layer.kv_heads, :, : layer.head_dim], v[:, : layer.kv_heads, :, : layer.head_dim]


def put(layer: Layer, slots: jax.Array, rows: KeyValue) -> Layer:
    """The layer with `rows`, each [U, K, P, H], at the beginning of `slots` [U]; those of slot S are dropped."""
    kept = layer.tokens
    k, v = (place(x, None, "kv_heads", None, None) for x in rows)  # on a mesh every device keeps its slots' rows
    new = side_by_side(k, v, None, kept.shape)
    where = cut(KEPT, kept.shape)
    return layer.replace(tokens=kept.at[slots, : new.shape[1]].set(new, mode="drop", out_sharding=where))


def write(layer: Layer, slots: jax.Array, blocks: jax.Array, rows: KeyValue) -> Layer:
    """The layer with `rows`, each [U, K, P, H], as blocks number `blocks` [U] of `slots` [U]."""
    kept = layer.tokens
    k, v = (place(x, None, "kv_heads", None, None) for x in rows)
    new = side_by_side(k, v, None, kept.shape)
    shape, axes = (kept.shape[0], kept.shape[1] // new.shape[1], *new.shape[1:]), ("batch", None, *KEPT[1:])
    cells = reshape(kept, shape, axes).at[slots, blocks].set(new, mode="drop", out_sharding=cut(axes, shape))
    return layer.replace(tokens=reshape(cells, kept.shape, KEPT))


def side_by_side(k: jax.Array, v: jax.Array, rows: str | None, shape: tuple[int, ...]) -> jax.Array:
    """k, v [U, K, P, H] as tokens [U, P, 2 K', H'], with the last two sizes of `shape`; `rows` is what U means."""
    pairs = jnp.stack([k, v], axis=2).transpose(0, 3, 1, 2, 4)  # [U, P, K, 2, H]
    count, length, heads, _, width = pairs.shape
    tokens = reshape(pairs, (count, length, 2 * heads, width), (rows, *KEPT[1:]))
    return jnp.pad(tokens, ((0, 0), (0, 0), (0, shape[2] - 2 * heads), (0, shape[3] - width)))


def attend(
    layer: Layer, positions: jax.Array, width: int, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, Layer]:
    """Attention of one token, q [S, N, 1, H] and k, v [S, K, 1, H], over the cache with that token written in."""
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    return attend_by(ragged_paged_attention, layer, positions, width, q, k, v)


def attend_by(
    kernel: Kernel, layer: Layer, positions: jax.Array, width: int, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, Layer]:
    """`attend` by a kernel of the same signature."""
    slots, heads, _, head_dim = q.shape
    kv_heads, kept = k.shape[1], layer.tokens
    padded, lanes = kept.shape[2] // 2, kept.shape[3]
    grouped = reshape(q, (slots, kv_heads, heads // kv_heads, head_dim), ("batch", "kv_heads", None, None))
    grouped = jnp.pad(grouped, ((0, 0), (0, padded - kv_heads), (0, 0), (0, lanes - head_dim)))
    queries = reshape(grouped, (slots, padded * (heads // kv_heads), lanes), ("batch", "kv_heads", None))
    operands = kept, side_by_side(k, v, "batch", kept.shape), positions, queries

    local = functools.partial(_attend_local, kernel, width, head_dim**-0.5)
    if cut(KEPT, kept.shape) is not None:
        specs = tuple(jax.typeof(x).sharding.spec for x in operands)
        local = jax.shard_map(local, in_specs=specs, out_specs=(specs[3], specs[0]), check_vma=False)
    y, tokens = local(*operands)
    y = reshape(y, grouped.shape, ("batch", "kv_heads", None, None))[:, :kv_heads, :, :head_dim]
    return reshape(y, q.shape, ("batch", "heads", None, None)), layer.replace(tokens=tokens)


def _attend_local(
    kernel: Kernel, width: int, scale: float, tokens: jax.Array, new: jax.Array, positions: jax.Array, q: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One device's slots and heads: q [S, N', H'] -> (y [S, N', H'], tokens with new [S, 1, 2 K', H'] in them)."""
    tokens = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))(tokens, new, positions)
    slots, length, *rest = tokens.shape
    owned, read_at_most = length // PAGE, -(-width // PAGE)
    first = owned * jnp.arange(slots, dtype=jnp.int32)
    y = kernel(
        q,
        tokens.reshape(slots * owned, PAGE, *rest),
        jnp.minimum(positions + 1, width),
        first[:, None] + jnp.arange(read_at_most, dtype=jnp.int32)[None],
        jnp.arange(slots + 1, dtype=jnp.int32),  # one query of each slot
        jnp.full(1, slots, jnp.int32),
        sm_scale=scale,
        num_kv_pages_per_block=min(PAGES, read_at_most),
        num_queries_per_block=min(QUERIES, slots),
        vmem_limit_bytes=VMEM,
    )
    return y, tokens
