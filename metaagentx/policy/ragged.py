"""Products of runs of rows, each with its own matrix: what a mixture of experts is made of.

On TPU these are JAX's "megablox" kernels (MegaBlocks, arXiv 2211.15841): the compiler's own ragged product is as good
forward, but its gradient by the matrices multiplies every row with every expert's share, 128 times the work for 128
experts. Elsewhere it is `jax.lax.ragged_dot_general`.

Letters: R rows, E matrices, I inputs, O outputs of each.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# Contracts the last axes of rows [R, I] and matrices [E, O, I], which are as Hugging Face stores them.
DIMENSIONS = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (2,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[0]
)
Gradients = tuple[jax.Array, jax.Array]


@jax.custom_vjp
def product(x: jax.Array, w: jax.Array, sizes: jax.Array) -> jax.Array:
    """x [R, I] and w [E, O, I] -> [R, O]: the first sizes[0] rows meet w[0], the next sizes[1] w[1], and so on.

    `sizes` [E] int32 may sum to less than R. The rows that remain are undefined, and so are their gradients; what they
    hold changes nothing else.
    """
    forward: jax.Array = jax.lax.platform_dependent(x, w, sizes, tpu=megablox, default=ragged)
    return forward


def _forward(x: jax.Array, w: jax.Array, sizes: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return product(x, w, sizes), (x, w, sizes)


def _backward(kept: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    dx, dw = jax.lax.platform_dependent(*kept, g, tpu=megablox_gradients, default=ragged_gradients)
    return dx, dw, None


product.defvjp(_forward, _backward)


def ragged(x: jax.Array, w: jax.Array, sizes: jax.Array) -> jax.Array:
    """`product` by the compiler."""
    return jax.lax.ragged_dot_general(x, w, sizes, DIMENSIONS)


def ragged_gradients(x: jax.Array, w: jax.Array, sizes: jax.Array, g: jax.Array) -> Gradients:
    """Gradients by x and w, from that of the product."""
    dx, dw = jax.vjp(functools.partial(ragged, sizes=sizes), x, w)[1](g)
    return dx, dw


def megablox(x: jax.Array, w: jax.Array, sizes: jax.Array, interpret: bool = False) -> jax.Array:
    """`product` by JAX's kernels for TPUs; `interpret` runs them anywhere, slowly."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

    tile = _tile(x, w)
    y = gmm(_whole(x, tile), w, sizes, x.dtype, (tile, *_widths(w.shape[2], w.shape[1])), None, None, True, interpret)
    return y[: len(x)]


def megablox_gradients(
    x: jax.Array, w: jax.Array, sizes: jax.Array, g: jax.Array, interpret: bool = False
) -> Gradients:
    """Gradients by x and w, from that of the product."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

    tile, rows = _tile(x, w), len(x)
    x, g = _whole(x, tile), _whole(g, tile)
    tiling = (tile, *_widths(w.shape[1], w.shape[2]))
    dx = gmm(g, w, sizes, x.dtype, tiling, None, None, False, interpret)
    dw = tgmm(g.swapaxes(0, 1), x, sizes, w.dtype, tiling, None, None, None, interpret)
    return dx[:rows], dw


def _tile(x: jax.Array, w: jax.Array) -> int:
    """Rows at a time: few when an expert has few, as in decoding, since a tile is whole for every expert in it."""
    return 512 if len(x) >= 256 * len(w) else 128


def _widths(contracted: int, out: int) -> tuple[int, int]:
    return min(contracted, 1024), min(out, 1024)


def _whole(x: jax.Array, tile: int) -> jax.Array:
    """x [R, I] with zeros up to whole tiles."""
    return jnp.pad(x, ((0, -len(x) % tile), (0, 0)))
