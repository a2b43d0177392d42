"""One optimiser step of one policy: every role's gradient at the same weights, then every role's own moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from metaagentx.learn.loss import (
    ESTIMATORS,
    clipped,
    importance_weight,
    k3,
    sequence_ratio,
    surrogate,
    token_ratio,
)
from metaagentx.learn.optimizer import descend
from metaagentx.learn.options import LossOptions, RoleOptions
from metaagentx.learn.pack import Batch
from metaagentx.learn.schedule import Phase
from metaagentx.learn.state import SHARED, TrainState, optimizers
from metaagentx.mesh import place
from metaagentx.policy.adapters import attach
from metaagentx.policy.config import Kernel, LoraOptions, ModelConfig, Remat
from metaagentx.policy.logprobs import token_logprobs, wide_vocabulary
from metaagentx.policy.model import forward
from metaagentx.policy.params import Params
from metaagentx.rollout.compilation import Call

Metrics = dict[str, jax.Array]


@dataclass(frozen=True, slots=True)
class Compute:
    """What a forward and backward pass computes, and how it is cut up: but for rounding, no result depends on that."""

    config: ModelConfig
    micro_rows: int  # rows of one pass; gradients are accumulated over passes
    chunk: int  # positions of a row whose logits exist at a time
    remat: Remat  # what the backward pass recomputes
    attention: Kernel  # how attention is computed
    lora: LoraOptions | None = None  # of the adapters that are trained; None: the weights themselves are
    unroll: bool = False  # whether every layer has code of its own


@dataclass(frozen=True, slots=True)
class Recipe:
    """What stays the same from step to step; hashable, so that it is static under jit."""

    compute: Compute
    loss: LossOptions
    roles: tuple[tuple[str, RoleOptions], ...]  # every role that this policy serves
    moments: Literal["per_role", "shared"]
    gap_bound: float  # mean |log-probability gap| between sampler and trainer above which `gap_exceeded` is 1


def update(
    state: TrainState, batches: Mapping[str, Batch], phase: Phase, recipe: Recipe, base: Params | None = None
) -> tuple[TrainState, Metrics]:
    """One step on one batch per role; `state` is donated, `base` is not.

    With `base` the state's params are an adapter of these weights, which get no gradient: `recipe.compute.lora` says
    how the two go together (LoRA, arXiv 2106.09685).

    A role that `phase` scales by 0 is not part of the computation: its moments, their counts and its schedule stay bit
    for bit. With per-role moments the roles' *updates* are mixed by their weights (Adam cancels the scale of a
    gradient); with shared ones the gradients are. A learning-rate scale multiplies the same thing. A batch from which
    nothing can be learned (see `teaches`) moves neither weights nor moments.

    Returns:
      The new state, and per role `loss`, `gradient_norm` (before clipping), `entropy`, `kl` (to the reference, if the
      role has a weight for it), `clip_share`, `tokens`, quantiles `ratio_p01`, `ratio_p50`, `ratio_p99` of the ratio
      trainer / sampler, and the gap between the two: `gap_mean`, `gap_max` (of the absolute difference of
      log-probabilities), `gap_k3` (KL(sampler || trainer)), `gap_exceeded`; scalars on the device, named `role/metric`.
    """
    program, arguments = call(state, batches, phase, recipe, base)
    found = program(*arguments)
    return found if program is _update else (replace(state, step=found), {})


def call(
    state: TrainState, batches: Mapping[str, Batch], phase: Phase, recipe: Recipe, base: Params | None = None
) -> Call:
    """The program of such an `update`, and what it is called with: where none of the batches trains, it counts it."""
    scales = {role: scale for role, scale in phase.trains.items() if scale > 0 and role in batches}
    micro = {role: split(batches[role], recipe.compute.micro_rows) for role in scales}
    return (_update, (state, base, micro, scales, recipe)) if scales else (_next, (state.step,))


def split(batch: Batch, micro_rows: int) -> Batch:
    """Arrays [R, L] as [micro-batches, rows, L]; a batch of fewer rows than `micro_rows` is one micro-batch.

    `old` is cut already, and [micro-batches, rows, L] in an uncut batch too.
    """
    rows = batch.tokens.shape[0]
    micro = min(micro_rows, rows)
    if rows % micro:
        raise ValueError(f"a batch of {rows} rows (pack.row_buckets) is no multiple of pack.micro_rows ({micro})")
    cut: Batch = jax.tree.map(lambda x: x.reshape(rows // micro, micro, x.shape[-1]), replace(batch, old=None))
    return replace(cut, old=batch.old)


@jax.jit
def _next(step: jax.Array) -> jax.Array:
    return step + 1


@partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def _update(
    state: TrainState, base: Params | None, batches: dict[str, Batch], scales: dict[str, jax.Array], recipe: Recipe
) -> tuple[TrainState, Metrics]:
    roles = dict(recipe.roles)
    gradients: dict[str, Params] = {}
    metrics: Metrics = {}
    live: dict[str, jax.Array] = {}
    for role, batch in batches.items():
        objective = partial(policy_loss, base=base, reference=state.reference, role=roles[role], recipe=recipe)
        batch = rows_over_mesh(batch)
        live[role] = teaches(batch, roles[role])
        with jax.named_scope(role):
            loss, gradients[role], tokens = accumulate(objective, state.params, batch)
            found = {"loss": loss, "gradient_norm": optax.global_norm(gradients[role])}
            found |= describe(batch, tokens, recipe.gap_bound)
        metrics |= {f"{role}/{name}": value for name, value in found.items()}

    weights: dict[str, Any] = {role: scale * roles[role].weight for role, scale in scales.items()}
    if recipe.moments == "shared":
        gradients, weights = {SHARED: mix(gradients, weights)}, {SHARED: 1.0}
        live = {SHARED: either(live)}
    rules, opt_states, updates = optimizers(roles, recipe.moments), {}, {}
    for key, gradient in gradients.items():
        updates[key], opt_states[key] = descend(rules[key], gradient, state.opt_states[key], state.weights, live[key])
    return state.moved(mix(updates, weights), opt_states, either(live)), metrics


def teaches(batch: Batch, role: RoleOptions) -> jax.Array:
    """[] bool: whether a batch can have a gradient. Without entropy and KL terms, equal rewards teach nothing."""
    return jnp.any(batch.mask if role.entropy or role.kl else batch.mask & (batch.advantages != 0))


def either(flags: Mapping[str, jax.Array]) -> jax.Array:
    """[] bool: whether any of them holds."""
    return jnp.any(jnp.stack(list(flags.values())))


def mix(trees: Mapping[str, Params], weights: Mapping[str, Any]) -> Params:
    """The weighted sum of trees."""
    scaled = [jax.tree.map(lambda x, w=weights[key]: w * x, tree) for key, tree in trees.items()]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *scaled)


def rows_over_mesh(batch: Batch) -> Batch:
    """Micro-batches [M, R, L] with their rows spread over the mesh."""
    return jax.tree.map(lambda x: place(x, None, "batch", None), batch)


Objective = Callable[[Params, Batch], tuple[jax.Array, Any]]


def accumulate(objective: Objective, params: Params, batch: Batch) -> tuple[jax.Array, Params, Any]:
    """Sum of losses and float32 gradients over the micro-batches of `batch` [M, R, L], and the stacked rest.

    A micro-batch without a token costs nothing, so one compiled program serves small and large batches alike.
    `objective` returns the rest as a tree of arrays [R, L].
    """

    def learn(micro: Batch) -> tuple[tuple[jax.Array, Params], Any]:
        (loss, rest), gradient = jax.value_and_grad(objective, has_aux=True)(params, micro)
        found = jax.tree.map(lambda x: x.astype(jnp.float32), (loss, gradient))
        return found, jax.tree.map(lambda x: place(x, "batch", None), rest)

    def work(total: tuple[jax.Array, Params], micro: Batch) -> tuple[tuple[jax.Array, Params], Any]:
        found, rest = learn(micro)
        return jax.tree.map(jnp.add, total, found), rest

    def skip(total: tuple[jax.Array, Params], micro: Batch) -> tuple[tuple[jax.Array, Params], Any]:
        _, rest = jax.eval_shape(objective, params, micro)
        return total, jax.tree.map(lambda x: jnp.zeros_like(micro.weights, x.dtype), rest)

    def step(total: tuple[jax.Array, Params], micro: Batch) -> tuple[tuple[jax.Array, Params], Any]:
        return jax.lax.cond(jnp.any(micro.segments > 0), work, skip, total, micro)

    def zero() -> tuple[jax.Array, Params]:
        return jnp.float32(0), jax.tree.map(lambda w: jnp.zeros_like(w, jnp.float32), params)

    if len(batch.tokens) == 1:  # without a sum there is no second copy of the gradients
        only = jax.tree.map(lambda x: x[0], batch)
        found, rest = jax.lax.cond(jnp.any(only.segments > 0), learn, lambda micro: skip(zero(), micro), only)
        return *found, jax.tree.map(lambda x: x[None], rest)
    (loss, gradient), rest = jax.lax.scan(step, zero(), batch)
    return loss, gradient, rest


def policy_loss(
    params: Params, batch: Batch, *, base: Params | None, reference: Params | None, role: RoleOptions, recipe: Recipe
) -> tuple[jax.Array, Metrics]:
    """The loss of one micro-batch [R, L], a plain sum, and what it knows of every token."""
    options = recipe.loss
    logp, entropy = logprobs(params, batch, recipe.compute, base)
    if not role.entropy:
        entropy = jax.lax.stop_gradient(entropy)
    old = jax.lax.stop_gradient(logp) if batch.old is None else batch.old
    if options.ratio == "sequence":
        ratio = sequence_ratio(logp, old, batch.mask, batch.segments)
    else:
        ratio = token_ratio(logp, old)

    gain = surrogate(ratio, batch.advantages, options.clip_low, options.clip_high)
    drawn = batch.sampler if batch.kept is None else batch.sampler - batch.kept
    token_loss = -importance_weight(old, drawn, options.importance_cap) * gain - role.entropy * entropy
    tokens = {
        "logp": logp,
        "entropy": entropy,
        "clip_share": clipped(ratio, batch.advantages, options.clip_low, options.clip_high),
    }
    if role.kl:
        if reference is None:
            raise ValueError("a role has a KL weight (roles.kl), but the state was created without a reference")
        fixed = jax.lax.stop_gradient(logprobs(reference, batch, recipe.compute, base, with_entropy=False)[0])
        token_loss += role.kl * ESTIMATORS[options.kl_estimator](logp, fixed)
        tokens["kl"] = k3(logp, fixed)
    return jnp.sum(batch.weights * token_loss), tokens


def logprobs(
    params: Params, batch: Batch, compute: Compute, base: Params | None = None, with_entropy: bool = True
) -> tuple[jax.Array, jax.Array]:
    """The trainer's log-probabilities of the targets and its entropies, both [R, L] float32, where there is loss.

    `params` are weights, or with `base` an adapter of it.
    """
    if base is None and compute.lora is None:
        weights = wide_vocabulary(params)
    elif base is not None and compute.lora is not None:
        weights = attach(base, params, compute.lora)
    else:
        raise ValueError("an adapter needs both `base` and `Compute.lora`, weights need neither")
    hidden = forward(
        weights,
        compute.config,
        batch.tokens,
        batch.positions,
        batch.segments,
        compute.remat,
        compute.attention,
        batch.stems,
        compute.unroll,
    )
    return token_logprobs(
        weights, compute.config, hidden, batch.targets, compute.chunk, with_entropy, wanted=batch.mask
    )


def describe(batch: Batch, tokens: Metrics, gap_bound: float) -> Metrics:
    """Metrics over the loss tokens of one role's batch; all arrays are [M, R, L]."""
    count = jnp.sum(batch.mask)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(batch.mask, values, 0)) / jnp.maximum(count, 1)

    gap = jnp.where(batch.mask, tokens["logp"] - batch.sampler, 0.0)
    found = {name: mean(values) for name, values in tokens.items() if name != "logp"}
    found |= {"tokens": count, "gap_mean": mean(jnp.abs(gap)), "gap_max": jnp.max(jnp.abs(gap))}
    found |= {"gap_k3": mean(k3(batch.sampler, tokens["logp"]))}
    found |= {"gap_exceeded": (~(found["gap_mean"] <= gap_bound)).astype(jnp.float32)}  # NaN too
    # The k-th smallest of the masked tokens; everything else sorts to the end.
    ordered = jnp.sort(place(jnp.where(batch.mask, gap, jnp.inf), None, None, None).reshape(-1))
    for name, share in (("ratio_p01", 0.01), ("ratio_p50", 0.5), ("ratio_p99", 0.99)):
        at = jnp.round(share * jnp.maximum(count - 1, 0)).astype(jnp.int32)
        found[name] = jnp.where(count > 0, jnp.exp(ordered[at]), 1.0)
    return found


def freeze_old(params: Params, batch: Batch, compute: Compute, base: Params | None = None) -> Batch:
    """`batch` with the trainer's log-probabilities of now as `old`: for several updates on one batch."""
    program, arguments = score_call(params, batch, compute, base)
    return replace(batch, old=program(*arguments))


def score_call(params: Params, batch: Batch, compute: Compute, base: Params | None = None) -> Call:
    """The program of `freeze_old`, and what it is called with."""
    return _score, (params, base, split(batch, compute.micro_rows), compute)


def frozen(params: Params, batch: Batch, compute: Compute, base: Params | None = None) -> Batch:
    """What `freeze_old` returns, but for `old` only its shape and layout: to compile an update for it."""
    program, arguments = score_call(params, batch, compute, base)
    old, like = program.eval_shape(*arguments), jax.tree.leaves(params)[0]
    # What a program returns is bound to a device where one of its arguments is.
    where = like.sharding if like.committed else None
    if isinstance(where, NamedSharding):
        where = NamedSharding(where.mesh, old.sharding.spec)
    return replace(batch, old=old.update(sharding=where))


@partial(jax.jit, static_argnames="compute")
def _score(params: Params, base: Params | None, batch: Batch, compute: Compute) -> jax.Array:
    """[M, R, L] of micro-batches of that shape."""

    def score(micro: Batch) -> jax.Array:
        return logprobs(params, micro, compute, base, with_entropy=False)[0]

    return place(jax.lax.map(score, rows_over_mesh(batch)), None, None, None)
