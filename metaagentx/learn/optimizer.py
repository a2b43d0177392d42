"""One role's optimiser, from its options."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from metaagentx.learn.options import OptimizerOptions
from metaagentx.policy.params import Params


def optimizer(options: OptimizerOptions) -> optax.GradientTransformation:
    """Clip by the global norm, then AdamW, or Muon for the layers' matrices and AdamW for the rest.

    Its updates are linear in the learning rate, weight decay included, so a scaled update is a scaled learning rate.
    """
    rate = schedule(options, options.learning_rate)
    if options.name == "adamw":
        rule = optax.adamw(rate, options.b1, options.b2, options.eps, weight_decay=options.weight_decay)
    else:
        rule = optax.contrib.muon(
            schedule(options, options.muon_learning_rate),
            weight_decay=options.weight_decay,
            adam_b1=options.b1,
            adam_b2=options.b2,
            eps=options.eps,
            adam_weight_decay=options.weight_decay,
            adam_learning_rate=rate,
            muon_weight_dimension_numbers=layer_matrices,
        )
    return optax.chain(optax.clip_by_global_norm(options.clip_norm), rule) if options.clip_norm else rule


def schedule(options: OptimizerOptions, peak: float) -> optax.Schedule:
    """Linear warm-up to `peak` (reached at update number `warmup_steps`), then constant or a linear decay to 0.

    `count` is the role's own number of updates: a frozen role's schedule stands still.
    """

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        value = jnp.float32(peak)
        if options.warmup_steps:
            value *= jnp.minimum(1.0, (count + 1) / options.warmup_steps)
        if options.decay_steps:
            value *= jnp.clip(1 - (count - options.warmup_steps) / options.decay_steps, 0.0, 1.0)
        return value

    return rate


def layer_matrices(params: Any) -> Any:
    """What Muon orthogonalises: each [out, in] matrix of the stacked layers (and of each expert), on its own.

    The factors of an adapter are no such matrices: their product is. AdamW takes them.
    """

    def one(path: tuple, leaf: jax.Array) -> MuonDimensionNumbers | None:
        # Axes that are neither reduction nor output are batch axes: every layer gets its own orthogonal factor.
        matrix = leaf.ndim >= 3 and jax.tree_util.keystr(path[:1], simple=True) == "layers"
        return MuonDimensionNumbers(reduction_axis=leaf.ndim - 1, output_axis=leaf.ndim - 2) if matrix else None

    return jax.tree_util.tree_map_with_path(one, params)


def descend(
    rule: optax.GradientTransformation, gradient: Params, moments: Any, weights: Params, live: jax.Array
) -> tuple[Params, Any]:
    """One step of `rule` in float32: what to add to the weights, and the new moments, laid out as the old ones.

    Where `live` [] bool is False there is nothing to learn from: the update is 0 and the moments stay, bit for bit,
    whatever momentum and weight decay would have done.
    """
    wide = jax.tree.map(lambda w: w.astype(jnp.float32), weights)
    step = rule.update
    if not jax.sharding.get_abstract_mesh().empty:
        # Muon's products of cut matrices leave open how their results are cut: the compiler may choose.
        layout = jax.tree.map(lambda x: jax.typeof(x).sharding, (gradient, moments))
        step = jax.sharding.auto_axes(step, out_sharding=layout)
    update, moved = step(gradient, moments, wide)
    update = jax.tree.map(lambda u: jnp.where(live, u, 0.0), update)
    return update, jax.tree.map(lambda new, old: jnp.where(live, new, old), moved, moments)
