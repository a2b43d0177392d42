"""Next-token cross-entropy on demonstrations: the cold start, by the packing and accumulation of the RL update."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from metaagentx.learn.optimizer import descend, optimizer
from metaagentx.learn.options import LossOptions, OptimizerOptions, PackOptions, RoleOptions
from metaagentx.learn.pack import Batch, pack_rows, token_weights
from metaagentx.learn.state import TrainState, abstract, create
from metaagentx.learn.update import Compute, Metrics, accumulate, logprobs, rows_over_mesh, split
from metaagentx.policy.params import Params
from metaagentx.rollout.compilation import Call

_KEY = "demonstrations"  # of the only optimiser state


def begin(params: Params, options: OptimizerOptions, master: bool) -> TrainState:
    """A new state for the cold start, around `params`; `master` as in `state.create`."""
    return create(params, _roles(options), "per_role", master)


def planned(params: Params, options: OptimizerOptions, master: bool) -> TrainState:
    """The shapes and layouts of what `begin` makes around weights of the shapes `params`."""
    return abstract(params, _roles(options), "per_role", master)


def _roles(options: OptimizerOptions) -> dict[str, RoleOptions]:
    return {_KEY: RoleOptions(optimizer=options)}


def pack_demonstrations(conversations: Sequence[tuple[NDArray, NDArray]], options: PackOptions) -> Batch:
    """(token ids [L], loss mask [L]) of each conversation as one batch in which every loss token counts the same.

    Raises:
      ValueError: a conversation is longer than a row.
    """
    tokens = [np.asarray(ids, np.int32) for ids, _ in conversations]
    masks = [np.asarray(mask, np.bool_) for _, mask in conversations]
    counts = np.array([mask[1:].sum() for mask in masks], np.int64)
    weights = token_weights(counts, [()] * len(counts), LossOptions(aggregation="token_mean"))
    silent = [np.zeros(len(ids), np.float32) for ids in tokens]
    return pack_rows(tokens, masks, silent, np.ones(len(tokens), np.float32), weights, options)


def imitate(
    state: TrainState, batch: Batch, options: OptimizerOptions, compute: Compute, base: Params | None = None
) -> tuple[TrainState, Metrics]:
    """One step; `state` is donated, `base` (see `update.update`) is not.

    Metrics: `loss` in nats per token, `gradient_norm` before clipping, `tokens`.
    """
    program, arguments = call(state, batch, options, compute, base)
    return program(*arguments)


def call(
    state: TrainState, batch: Batch, options: OptimizerOptions, compute: Compute, base: Params | None = None
) -> Call:
    """The program of such an `imitate`, and what it is called with."""
    return _imitate, (state, base, split(batch, compute.micro_rows), options, compute)


@partial(jax.jit, static_argnames=("options", "compute"), donate_argnames="state")
def _imitate(
    state: TrainState, base: Params | None, batch: Batch, options: OptimizerOptions, compute: Compute
) -> tuple[TrainState, Metrics]:
    objective = partial(cross_entropy, base=base, compute=compute)
    batch = rows_over_mesh(batch)
    loss, gradient, _ = accumulate(objective, state.params, batch)
    live = jnp.any(batch.mask)
    update, moments = descend(optimizer(options), gradient, state.opt_states[_KEY], state.weights, live)
    metrics = {"loss": loss, "gradient_norm": optax.global_norm(gradient), "tokens": jnp.sum(batch.mask)}
    return state.moved(update, {_KEY: moments}, live), metrics


def cross_entropy(params: Params, batch: Batch, *, base: Params | None, compute: Compute) -> tuple[jax.Array, None]:
    """Minus the weighted sum of the targets' log-probabilities."""
    logp, _ = logprobs(params, batch, compute, base, with_entropy=False)
    return -jnp.sum(batch.weights * logp), None
