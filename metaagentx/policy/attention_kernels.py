"""Attention by others' kernels: Pallas' for TPUs and GPUs, NVIDIA's cuDNN. Letters as in `attention`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from metaagentx.mesh import cut, place, reshape
from metaagentx.policy.attention import LANES, NAME


def splash(segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, interpret: bool = False) -> jax.Array:
    """Causal attention by Pallas' splash kernel (`jax.experimental.pallas.ops.tpu`), forward and backward on a TPU.

    Arguments as of `blocked`; `interpret` runs the kernel's Python on any device, for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    rows, heads, length, width = q.shape
    kv_heads, group = k.shape[1], heads // k.shape[1]
    size = min(1024, -(-length // LANES) * LANES)
    padded = -(-length // size) * size
    wide = 2 * size if padded % (2 * size) == 0 else size  # keys of a block backward; twice as many overflow the VMEM

    def pad(x: jax.Array, fill: int = 0) -> jax.Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, padded - length), (0, 0)), constant_values=fill)

    def local(owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """One device's rows and key-value heads."""
        mask = splash_attention.MultiHeadMask([splash_attention.CausalMask((padded, padded))] * group)
        sizes = splash_attention.BlockSizes(
            block_q=size,
            block_kv=size,
            block_kv_compute=min(size, 512),
            block_q_dkv=size,
            block_kv_dkv=wide,
            block_kv_dkv_compute=min(size, 512),
            use_fused_bwd_kernel=True,  # five products instead of seven; dq is summed over padded / wide parts
        )
        kernel = splash_attention.make_splash_mqa_single_device(
            mask, block_sizes=sizes, residual_checkpoint_name=NAME, interpret=interpret
        )

        def row(owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            ids = splash_attention.SegmentIds(owner, owner)
            return jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=ids))(q, k, v)

        return jax.vmap(row)(owner, q, k, v)

    owner = pad(place(segments, "batch", None)[:, :, None], fill=-1)[..., 0]
    y = _on_each_device(local, owner, pad(_grouped(q * width**-0.5, kv_heads)), pad(k), pad(v))[..., :length, :]
    return reshape(y, (rows, heads, length, width), ("batch", "heads", None, None))


def fused(
    segments: jax.Array,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    alone: bool = False,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Causal attention by cuDNN (`jax.nn.dot_product_attention`), forward and backward on a GPU.

    Arguments as of `blocked`, in 16 bits, and `alone` as of `within`: without it a mask [B, T, T] is made, which cuDNN
    wants as numbers. Another `implementation` is the same computation anywhere, for tests.
    """
    length, odd = q.shape[2], q.shape[2] % 2  # cuDNN masks even lengths only

    def pad(x: jax.Array, fill: int = 0) -> jax.Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, odd), (0, 0)), constant_values=fill)

    def local(owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        merged = q.reshape(q.shape[0], -1, *q.shape[3:])
        mask = None if alone else (owner[:, :, None] == owner[:, None, :])[:, None]
        q_rows, k_rows, v_rows = (x.swapaxes(1, 2) for x in (merged, k, v))
        y = jax.nn.dot_product_attention(
            q_rows, k_rows, v_rows, mask=mask, is_causal=True, implementation=implementation
        )
        return y.swapaxes(1, 2).reshape(q.shape)

    owner = pad(place(segments, "batch", None)[:, :, None], fill=-1)[..., 0]
    y = _on_each_device(local, owner, pad(_grouped(q, k.shape[1])), pad(k), pad(v))[..., :length, :]
    return reshape(y, q.shape, ("batch", "heads", None, None))


def triton(segments: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, interpret: bool = False) -> jax.Array:
    """Causal attention by Pallas' kernel for GPUs (`jax.experimental.pallas.ops.gpu`), forward and backward.

    Arguments as of `blocked`; H is a power of two. `interpret` runs the kernel's Python on any device, for tests.
    """
    from jax.experimental.pallas.ops.gpu import attention as pallas

    length, width, group = q.shape[2], q.shape[3], q.shape[1] // k.shape[1]
    size = 64 if q.dtype.itemsize == 2 else 32  # of a block: a few of them are on the chip at once
    missing = -length % size
    sizes = pallas.BlockSizes(size, size, *(min(size, 32),) * 4)

    def pad(x: jax.Array, fill: int = 0) -> jax.Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, missing), (0, 0)), constant_values=fill)

    def local(owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """The kernel knows no groups: every query head gets its keys and values."""
        merged = q.reshape(q.shape[0], -1, *q.shape[3:])
        operands = (x.swapaxes(1, 2) for x in (merged, jnp.repeat(k, group, axis=1), jnp.repeat(v, group, axis=1)))
        y = pallas.mha(*operands, owner, width**-0.5, True, sizes, interpret=interpret)
        return y.swapaxes(1, 2).reshape(q.shape)

    owner = pad(place(segments, "batch", None)[:, :, None], fill=-1)[..., 0]
    y = _on_each_device(local, owner, pad(_grouped(q, k.shape[1])), pad(k), pad(v))[..., :length, :]
    return reshape(y, q.shape, ("batch", "heads", None, None))


def _grouped(q: jax.Array, kv_heads: int) -> jax.Array:
    """[B, N, T, H] as [B, K, G, T, H]: on a mesh, with the keys and values of the same heads on each device."""
    shape = (q.shape[0], kv_heads, q.shape[1] // kv_heads, *q.shape[2:])
    return reshape(q, shape, ("batch", "kv_heads", None, None, None))


def _on_each_device(
    local: Callable[..., jax.Array], owner: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array
) -> jax.Array:
    """`local` of each device's rows and key-value heads: a result like q [B, K, G, T, H]."""
    operands = owner, q, k, v
    if cut(("batch", "kv_heads", None, None), k.shape) is not None:
        specs = tuple(jax.typeof(x).sharding.spec for x in operands)
        local = jax.shard_map(local, in_specs=specs, out_specs=specs[1], check_vma=False)
    return local(*operands)
