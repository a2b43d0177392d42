"""Which weights serve which role: one set for all, one set each, or one base with an adapter each.

`Weights` are what acts, and what a run hands from its cold start to its training and its evaluation. `States` are what
trains: one `TrainState` for each policy, named by what it serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaagentx.learn.credit import Assigned
from metaagentx.learn.options import RoleOptions
from metaagentx.learn.pack import Batch, blank, of_one_bucket, pack
from metaagentx.learn.schedule import Phase, phases
from metaagentx.learn.state import TrainState, create
from metaagentx.learn.update import Compute, Metrics, Recipe, call, freeze_old, frozen, score_call, update
from metaagentx.policy import adapters
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.params import Params, abstract
from metaagentx.rollout.compilation import Call
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.remote import Remote
from metaagentx.settings import Settings

SHARED, BASE = "shared", "base"  # names of weights that serve every role

States = dict[str, TrainState]  # policy -> its state; a policy is named by its role, or `SHARED`


@flax.struct.dataclass
class Weights:
    """What acts: full weights, and with layout "adapters" what is added to them for each role."""

    full: dict[str, Params]  # {"shared"}, {"base"} or each role
    adapters: dict[str, Params]  # role -> adapter; empty in the other layouts

    @property
    def base(self) -> Params | None:
        """The frozen weights under the adapters; None where full weights train."""
        return self.full.get(BASE)

    @property
    def parts(self) -> dict[str, Params]:
        """All of it by name."""
        return self.full | self.adapters


def around(
    params: Params, settings: Settings, here: Sequence[str], model: ModelConfig, key: jax.Array, mesh: Mesh | None
) -> Weights:
    """New weights for the roles `here`, in the layout of the run's policies, that act as `params` do. Keeps `params`.

    Those of a role do not depend on which other roles are here.
    """
    options, roles = settings.policies, settings.role_names
    if options.layout == "shared":
        return Weights({SHARED: params}, {})
    if options.layout == "split":
        return Weights({role: jax.tree.map(jnp.copy, params) if role != here[0] else params for role in here}, {})
    keys = dict(zip(roles, jax.random.split(key, len(roles)), strict=True))
    return Weights({BASE: params}, {role: adapters.initialise(model, options.lora, keys[role], mesh) for role in here})


def shapes(settings: Settings, here: Sequence[str], model: ModelConfig, mesh: Mesh | None) -> Weights:
    """Shapes and layouts of what `around` makes; nothing is allocated."""
    options = settings.policies
    names = {"shared": [SHARED], "split": here, "adapters": [BASE]}[options.layout] if here else []
    full = dict.fromkeys(names, abstract(model, mesh))
    if options.layout != "adapters":
        return Weights(full, {})
    return Weights(full, dict.fromkeys(here, adapters.abstract(model, options.lora, mesh)))


def served(name: str, roles: Sequence[str]) -> tuple[str, ...]:
    """Those of a run's roles that the weights of this name serve."""
    return tuple(roles) if name in (SHARED, BASE) else (name,)


def states(weights: Weights, settings: Settings) -> States:
    """New training states, which keep `weights`: updates donate them."""
    trained = weights.adapters or weights.full
    return {
        policy: create(params, _roles(policy, settings), settings.stages.moments, master=settings.policies.master)
        for policy, params in trained.items()
    }


def acting(states: States, base: Params | None) -> Weights:
    """The weights of `states`, over `base` where these are adapters."""
    params = {policy: state.params for policy, state in states.items()}
    return Weights(params, {}) if base is None else Weights({BASE: base}, params)


def crossed(first: Weights, rest: Weights, lead: str) -> Weights:
    """The lead's own weights of `first`, and the others' of `rest`; what roles share is of `rest`."""
    full = {name: (first if name == lead else rest).full[name] for name in rest.full}
    return Weights(full, {role: (first if role == lead else rest).adapters[role] for role in rest.adapters})


def load(engines: Mapping[str, Engine | Remote], weights: Weights, version: int) -> None:
    """Give the engines these weights; servers have their own."""
    for name, params in weights.full.items():
        roles = served(name, tuple(engines))
        engine = next(engine for role in roles if isinstance(engine := engines[role], Engine))
        engine.load(params, version, weights.adapters or None)


def batches(assigned: Mapping[str, Assigned], phase: Phase, settings: Settings) -> dict[str, Batch]:
    """What the roles that train now learn from, packed; `assigned`: by role, of those that are here."""
    packed = {}
    for role, own in assigned.items():
        if phase.trains.get(role, 0) > 0:
            options, parts = settings.roles[role], (own.trajectories, own.advantages, settings.pack, settings.loss)
            packed[role] = pack(*parts, keep_zero=bool(options.entropy or options.kl), times=own.counts)
    # One update of several roles has one bucket: else each pair of buckets were a program.
    return of_one_bucket(packed) if settings.policies.layout == SHARED else packed


def train_step(
    states: States,
    base: Params | None,
    batches: Mapping[str, Batch],
    phase: Phase,
    settings: Settings,
    compute: Compute,
) -> tuple[States, Metrics]:
    """The update of each of `states`, which are donated, on the batches of its roles. Metrics: `role/metric`.

    Those of a run's policies that are trained elsewhere have no state, and their roles no batch.
    """
    count = settings.train.updates
    stepped: States = {}
    metrics: Metrics = {}
    for policy, state in states.items():
        own = {role: batches[role] for role in served(policy, settings.role_names) if role in batches}
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


def programs(states: States, base: Params | None, settings: Settings, compute: Compute) -> Iterator[Call]:
    """Those of every policy's update in every phase, on batches of every bucket, largest first."""
    for policy, state in states.items():
        recipe = _recipe(policy, settings, compute)
        for rows in settings.pack.row_buckets[::-1]:
            batch = blank(settings.pack, settings.loss, settings.reshaped, rows)
            if settings.train.updates > 1:
                yield score_call(state.params, batch, compute, base)
                batch = frozen(state.params, batch, compute, base)
            for phase in phases(settings.stages, settings.learners):
                own = [role for role in served(policy, settings.role_names) if phase.trains.get(role, 0) > 0]
                if own or rows == settings.pack.row_buckets[-1]:  # where nothing trains there are no rows
                    yield call(state, dict.fromkeys(own, batch), phase, recipe, base)


def _recipe(policy: str, settings: Settings, compute: Compute) -> Recipe:
    roles = tuple(_roles(policy, settings).items())
    return Recipe(compute, settings.loss, roles, settings.stages.moments, settings.train.gap_bound)


def _roles(policy: str, settings: Settings) -> dict[str, RoleOptions]:
    return {role: settings.roles[role] for role in served(policy, settings.role_names)}
