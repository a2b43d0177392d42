"""Everything that training changes, as one tree: what a checkpoint of a policy holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from metaagentx.learn.optimizer import optimizer
from metaagentx.learn.options import RoleOptions
from metaagentx.policy.params import Params

SHARED = "shared"  # the one key of `opt_states` where roles share their moments


@flax.struct.dataclass
class TrainState:
    """One policy in training. A run with several policies has one of these for each."""

    params: Params
    opt_states: dict[str, Any]  # role -> optimiser state, float32, laid out like the weights; or {"shared": ...}
    step: jax.Array  # [] int32, updates asked for, frozen ones included
    version: jax.Array  # [] int32, how often the weights have changed
    reference: Params | None  # weights of the cold start, for KL terms; None where no role has one


def optimizers(
    roles: Mapping[str, RoleOptions], moments: Literal["per_role", "shared"]
) -> dict[str, optax.GradientTransformation]:
    """The optimiser of each key of `TrainState.opt_states`.

    Raises:
      ValueError: shared moments, but roles whose optimisers differ.
    """
    if moments == "per_role":
        return {role: optimizer(options.optimizer) for role, options in roles.items()}
    distinct = {options.optimizer for options in roles.values()}
    if len(distinct) != 1:
        raise ValueError(f"stages.moments 'shared' needs one optimizer for all of {', '.join(roles)}: theirs differ")
    return {SHARED: optimizer(distinct.pop())}


def create(params: Params, roles: Mapping[str, RoleOptions], moments: Literal["per_role", "shared"]) -> TrainState:
    """A new state around `params`, which it keeps. The reference is a copy of them, if any role has a KL weight."""
    wide = jax.tree.map(lambda w: w.astype(jnp.float32), params)
    state = TrainState(
        params=params,
        opt_states={key: jax.jit(rule.init)(wide) for key, rule in optimizers(roles, moments).items()},
        step=jnp.int32(0),
        version=jnp.int32(0),
        reference=jax.tree.map(jnp.copy, params) if any(options.kl for options in roles.values()) else None,
    )
    return jax.tree.map(partial(settle, jax.tree.leaves(params)[0].sharding), state)


def settle(home: jax.sharding.Sharding, x: jax.Array) -> jax.Array:
    """`x` committed to where it lives, numbers to all devices of `home`: as the state of a later step is.

    Otherwise the first and the second step would be two programs to the compiler.
    """
    if isinstance(home, NamedSharding):
        placed = isinstance(x.sharding, NamedSharding) and x.sharding.mesh.shape == home.mesh.shape
        return jax.device_put(x, x.sharding if placed else NamedSharding(home.mesh, PartitionSpec()))
    return jax.device_put(x, x.sharding)
