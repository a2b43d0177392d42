"""The forward pass: one block, shared by training, prefill and decoding (Llama, arXiv 2302.13971; Qwen3, 2505.09388).

Letters: B rows, T tokens of a row, D d_model, N query heads, K key-value heads, H head_dim, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metaagentx.mesh import Axes, cut, gather, place, reshape
from metaagentx.policy.adapters import Adapted, low_rank
from metaagentx.policy.attend import within
from metaagentx.policy.attention import NAME, Attend, KeyValue, Stems
from metaagentx.policy.config import Kernel, ModelConfig, Remat
from metaagentx.policy.experts import mixture
from metaagentx.policy.params import Params
from metaagentx.policy.quantise import Int8, product
from metaagentx.policy.rope import Rotation, rotary, rotate


def forward(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    remat: Remat = "none",
    attention: Kernel = "dense",
    stems: Stems | None = None,
    unroll: bool = False,
) -> jax.Array:
    """Final hidden states [B, T, D] of packed rows.

    A token attends to the tokens of its own segment at its own or an earlier position, to those of the segment that
    its own continues, and to nothing else.

    Args:
      tokens: [B, T] int32 ids.
      positions: [B, T] int32 position within the segment.
      segments: [B, T] int32, 0 for padding; what padding holds changes no bit of other tokens' outputs.
      remat: what the backward pass recomputes: nothing, all but the products with weights and a kernel's attention
        ("dots"), all but a kernel's attention ("attention"), whole blocks.
      attention: how attention is computed; see `policy.attention`.
      stems: where rows are trees, which segment continues which; None: none does.
      unroll: every layer has code of its own, which reads and writes nothing stacked; else layers are turns of a loop.
    """
    attend = within(attention, positions, segments, stems=stems)
    rotation = rotary(positions, config)

    def step(x: jax.Array, layer: Params) -> tuple[jax.Array, None]:
        return block(layer, config, x, rotation, attend)[0], None

    x = embed(params, tokens)
    if remat != "none":
        policies = jax.checkpoint_policies
        kernel = policies.save_only_these_names(NAME)
        dots = policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable, kernel)
        saved = {"dots": dots, "attention": kernel, "full": None}[remat]
        step = jax.checkpoint(step, policy=saved, prevent_cse=unroll)  # in a loop nothing else could be merged with it
    x, _ = jax.lax.scan(step, x, params["layers"], unroll=unroll)
    return rms_norm(x, params["final_norm"], config.norm_eps)


def block(
    layer: Params, config: ModelConfig, x: jax.Array, rotation: Rotation, attend: Attend
) -> tuple[jax.Array, KeyValue]:
    """One layer: x [B, T, D] -> (x, the keys and values that `attend` keeps). `layer` is unstacked."""
    with jax.named_scope("attention"):
        y = rms_norm(x, layer["attn_norm"], config.norm_eps)
        q = project(layer, "q", y, config.heads, "heads")
        k = project(layer, "k", y, config.kv_heads, "kv_heads")
        v = project(layer, "v", y, config.kv_heads, "kv_heads")
        if config.qk_norm:
            q = rms_norm(q, layer["q_norm"], config.norm_eps)
            k = rms_norm(k, layer["k_norm"], config.norm_eps)
        y, kept = attend(rotate(q, rotation), rotate(k, rotation), v)
        x = x + linear(merge(y), layer["o"], None)
    with jax.named_scope("mlp"):
        y = rms_norm(x, layer["mlp_norm"], config.norm_eps)
        x = x + (mlp(layer, y) if config.experts is None else mixture(layer, config.experts, y))
    return x, kept


def mlp(layer: Params, x: jax.Array) -> jax.Array:
    """SwiGLU (arXiv 2002.05202): x [B, T, D] -> [B, T, D]."""
    return linear(jax.nn.silu(linear(x, layer["gate"], "ff")) * linear(x, layer["up"], "ff"), layer["down"], None)


def project(layer: Params, name: str, x: jax.Array, heads: int, axis: str) -> jax.Array:
    """Queries, keys or values: x [B, T, D] -> [B, heads, T, H]."""
    y = linear(x, layer[name], axis)
    if f"{name}_bias" in layer:
        y = y + layer[f"{name}_bias"][None, None]
    return split(y, heads, axis)


def linear(x: jax.Array, w: jax.Array | Adapted | Int8, out: str | None) -> jax.Array:
    """x [B, ..., I], w [O, I] -> [B, ..., O], whose last axis means `out`."""
    if isinstance(w, Adapted):
        return linear(x, w.weight, out) + low_rank(x, w, out)
    if isinstance(w, Int8):
        return product(x, w, out).astype(x.dtype)
    axes: Axes = ("batch", *(None,) * (x.ndim - 2), out)
    return jnp.einsum("...i,oi->...o", x, gather(w, x), out_sharding=cut(axes, (*x.shape[:-1], w.shape[0])))


def split(x: jax.Array, heads: int, axis: str) -> jax.Array:
    """[B, T, heads * H] -> [B, heads, T, H]."""
    return reshape(x, (*x.shape[:2], heads, x.shape[2] // heads), ("batch", None, axis, None)).swapaxes(1, 2)


def merge(x: jax.Array) -> jax.Array:
    """[B, N, T, H] -> [B, T, N * H]."""
    x = x.swapaxes(1, 2)
    return reshape(x, (*x.shape[:2], x.shape[2] * x.shape[3]), ("batch", None, "heads"))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation of the last axis, in float32 (arXiv 1910.07467)."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    return y.astype(x.dtype) * jnp.expand_dims(scale, range(x.ndim - 1))


@jax.named_scope("embed")
def embed(params: Params, tokens: jax.Array) -> jax.Array:
    """tokens [B, T] -> [B, T, D]. The table may be wider than the activations: see `logprobs.wide_vocabulary`."""
    weights = params["embed"]
    # A device looks up the columns that it holds, of its neighbours' tokens too: those travel, the table does not.
    where = cut(("replicas", None, "embed"), (*tokens.shape, weights.shape[1]))
    x = weights.at[place(tokens, "replicas", None)].get(out_sharding=where)
    return place(x.astype(params["final_norm"].dtype), "batch", None, None)


@jax.named_scope("unembed")
def unembed(params: Params, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """hidden [B, ..., D] -> logits [B, ..., V] float32."""
    weights = params["head"] if "head" in params else params["embed"]
    if isinstance(weights, Int8):
        return product(hidden, weights, "vocab")
    axes: Axes = ("batch", *(None,) * (hidden.ndim - 2), "vocab")
    where = cut(axes, (*hidden.shape[:-1], weights.shape[0]))
    weights = weights.astype(hidden.dtype)
    return jnp.einsum("...d,vd->...v", hidden, weights, preferred_element_type=jnp.float32, out_sharding=where)
