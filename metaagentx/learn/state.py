"""Everything that training changes, as one tree: what a checkpoint of a policy holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from metaagentx.learn.optimizer import optimizer
from metaagentx.learn.options import RoleOptions
from metaagentx.mesh import place
from metaagentx.policy.params import Params

SHARED = "shared"  # the one key of `opt_states` where roles share their moments


@flax.struct.dataclass
class TrainState:
    """One policy in training. A run with several policies has one of these for each."""

    params: Params  # what is sampled from and differentiated
    master: Params | None  # the same in float32, which updates add up in; None: they add up in `params` themselves
    opt_states: dict[str, Any]  # role -> optimiser state, float32, laid out like the weights; or {"shared": ...}
    step: jax.Array  # [] int32, updates asked for, frozen ones included
    version: jax.Array  # [] int32, how often the weights have changed
    reference: Params | None  # weights of the cold start, for KL terms; None where no role has one

    @property
    def weights(self) -> Params:
        """What the optimiser reads and moves."""
        return self.params if self.master is None else self.master

    def moved(self, update: Params, opt_states: Mapping[str, Any], changed: jax.Array) -> TrainState:
        """The state after `update` (float32) is added to the weights; `changed` [] bool: whether it is not all zero."""
        weights = optax.apply_updates(self.weights, update)
        return replace(
            self,
            params=jax.tree.map(lambda wide, w: wide.astype(w.dtype), weights, self.params),
            master=None if self.master is None else weights,
            opt_states={**self.opt_states, **opt_states},
            step=self.step + 1,
            version=self.version + changed,
        )


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


def create(
    params: Params, roles: Mapping[str, RoleOptions], moments: Literal["per_role", "shared"], master: bool
) -> TrainState:
    """A new state around `params`, which it keeps. The reference is a copy of them, if any role has a KL weight.

    Everything is made where its weight lives: on a mesh no device ever holds the whole of anything that is cut.

    Args:
      master: add updates up in float32 copies of weights that are narrower. A bfloat16 near 1 is 2^-8 from the next:
        steps of a usual learning rate round to nothing. Ignored where the weights are float32.
    """
    state = _new(params, tuple(roles.items()), moments, master)
    return jax.tree.map(partial(settle, jax.tree.leaves(params)[0].sharding), state)


def abstract(
    params: Params, roles: Mapping[str, RoleOptions], moments: Literal["per_role", "shared"], master: bool
) -> TrainState:
    """The shapes and layouts of what `create` makes around weights of the shapes `params`; nothing is allocated."""
    new = partial(_new, roles=tuple(roles.items()), moments=moments, master=master)
    shapes: TrainState = jax.eval_shape(new, params)
    return replace(shapes, params=params)


def _new(
    params: Params, roles: tuple[tuple[str, RoleOptions], ...], moments: Literal["per_role", "shared"], master: bool
) -> TrainState:
    opt_states, wide, reference = _around(params, roles, moments, master)
    return TrainState(
        params=params, master=wide, opt_states=opt_states, step=jnp.int32(0), version=jnp.int32(0), reference=reference
    )


@partial(jax.jit, static_argnames=("roles", "moments", "master"))
def _around(
    params: Params, roles: tuple[tuple[str, RoleOptions], ...], moments: Literal["per_role", "shared"], master: bool
) -> tuple[dict[str, Any], Params | None, Params | None]:
    """Optimiser states, masters and reference around `params`."""
    options = dict(roles)
    wide = jax.tree.map(lambda w: w.astype(jnp.float32), params)
    narrow = any(w.dtype != jnp.float32 for w in jax.tree.leaves(params))
    return (
        {key: jax.tree.map(_everywhere, rule.init(wide)) for key, rule in optimizers(options, moments).items()},
        wide if master and narrow else None,
        jax.tree.map(jnp.copy, params) if any(role.kl for role in options.values()) else None,
    )


def _everywhere(x: jax.Array) -> jax.Array:
    """`x`, on every device of the mesh if it is made of no weight: an update would return it so, as another type."""
    return place(x, *(None,) * x.ndim) if jax.typeof(x).sharding.mesh.empty else x


def settle(home: jax.sharding.Sharding, x: jax.Array) -> jax.Array:
    """`x` committed to where it lives, numbers to all devices of `home`: as the state of a later step is.

    Otherwise the first and the second step would be two programs to the compiler.
    """
    if isinstance(home, NamedSharding):
        placed = isinstance(x.sharding, NamedSharding) and x.sharding.mesh.shape == home.mesh.shape
        return jax.device_put(x, x.sharding if placed else NamedSharding(home.mesh, PartitionSpec()))
    return jax.device_put(x, x.sharding)
