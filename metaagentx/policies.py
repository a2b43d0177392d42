"""Which weights serve which role: one set for both, one set each, or one base with an adapter each.

`Weights` are what acts, and what a run hands from its cold start to its training and its evaluation. `States` are what
trains: one `TrainState` for each policy, named by what it serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaagentx.learn.options import RoleOptions
from metaagentx.learn.pack import Batch, blank
from metaagentx.learn.schedule import ROLES, Phase, phases
from metaagentx.learn.state import TrainState, create
from metaagentx.learn.update import Compute, Metrics, Recipe, call, freeze_old, update
from metaagentx.policy import adapters
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.params import Params
from metaagentx.rollout.compilation import Call
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.remote import Remote
from metaagentx.settings import PolicyOptions, Settings

SHARED, BASE = "shared", "base"  # names of weights that serve both roles

States = dict[str, TrainState]  # policy -> its state; a policy is named by its role, or `SHARED`


@flax.struct.dataclass
class Weights:
    """What acts: full weights, and with layout "adapters" what is added to them for each role."""

    full: dict[str, Params]  # {"shared"}, {"designer", "executor"} or {"base"}
    adapters: dict[str, Params]  # role -> adapter; empty in the other layouts

    @property
    def base(self) -> Params | None:
        """The frozen weights under the adapters; None where full weights train."""
        return self.full.get(BASE)


def around(params: Params, options: PolicyOptions, model: ModelConfig, key: jax.Array, mesh: Mesh | None) -> Weights:
    """New weights in the layout of `options`, that all act as `params` do. Keeps `params`."""
    here = [role for role in ROLES if role not in options.servers.by_role()]
    if options.layout == "shared":
        return Weights({SHARED: params}, {})
    if options.layout == "split":
        return Weights({role: jax.tree.map(jnp.copy, params) if role != here[0] else params for role in here}, {})
    keys = dict(zip(ROLES, jax.random.split(key, len(ROLES)), strict=True))
    return Weights({BASE: params}, {role: adapters.initialise(model, options.lora, keys[role], mesh) for role in here})


def served(policy: str) -> tuple[str, ...]:
    """The roles that a policy serves."""
    return ROLES if policy == SHARED else (policy,)


def states(weights: Weights, settings: Settings) -> States:
    """New training states, which keep `weights`: updates donate them."""
    roles = settings.roles.by_role()
    trained = weights.adapters or weights.full
    return {
        policy: create(params, _of(policy, roles), settings.stages.moments, master=settings.policies.master)
        for policy, params in trained.items()
    }


def acting(states: States, base: Params | None) -> Weights:
    """The weights of `states`, over `base` where these are adapters."""
    params = {policy: state.params for policy, state in states.items()}
    return Weights(params, {}) if base is None else Weights({BASE: base}, params)


def load(engines: Mapping[str, Engine | Remote], weights: Weights, version: int) -> None:
    """Give the engines these weights; servers have their own."""
    for policy, params in weights.full.items():
        roles = ROLES if policy == BASE else served(policy)
        engine = next(engine for role in roles if isinstance(engine := engines[role], Engine))
        engine.load(params, version, weights.adapters or None)


def train_step(
    states: States,
    base: Params | None,
    batches: Mapping[str, Batch],
    phase: Phase,
    settings: Settings,
    compute: Compute,
) -> tuple[States, Metrics]:
    """Every policy's update on the batches of its roles; `states` are donated. Metrics are named `role/metric`."""
    count = settings.train.updates
    stepped: States = {}
    metrics: Metrics = {}
    for policy, state in states.items():
        own = {role: batches[role] for role in served(policy) if role in batches}
        recipe = _recipe(policy, settings, compute)
        if count > 1:
            own = {role: freeze_old(state.params, batch, compute, base) for role, batch in own.items()}
        state, found = update(state, own, phase, recipe, base)
        gaps = {name: value for name, value in found.items() if "/gap_" in name}  # at the weights that sampled
        for _ in range(1, count):
            state, found = update(state, own, phase, recipe, base)
        stepped[policy] = state
        metrics |= found | gaps
    return stepped, metrics


def largest_steps(states: States, base: Params | None, settings: Settings, compute: Compute) -> Iterator[Call]:
    """The program of every policy's update in every phase, on batches of the largest bucket."""
    for phase in phases(settings.stages):
        empty = blank(settings.pack, settings.loss, settings.sampling.reshaped)
        batches = {role: empty for role, scale in phase.trains.items() if scale > 0}
        for policy, state in states.items():
            own = {role: batches[role] for role in served(policy) if role in batches}
            if found := call(state, own, phase, _recipe(policy, settings, compute), base):
                yield found


def _recipe(policy: str, settings: Settings, compute: Compute) -> Recipe:
    roles = tuple(_of(policy, settings.roles.by_role()).items())
    return Recipe(compute, settings.loss, roles, settings.stages.moments, settings.train.gap_bound)


def _of(policy: str, roles: Mapping[str, RoleOptions]) -> dict[str, RoleOptions]:
    return {role: roles[role] for role in served(policy)}
