"""What a run will hold in a device's memory, found from shapes alone: before any weights are read."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from metaagentx import policies
from metaagentx.learn.state import TrainState, abstract
from metaagentx.learn.supervised import planned
from metaagentx.policies import served
from metaagentx.policy import kernels, params
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.params import Params
from metaagentx.policy.quantise import in_eight_bits
from metaagentx.rollout.state import empty_state
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings
from metaagentx.transfer import regroup

# What to change where something takes too much. Every weight, and what goes with it, is cut over the mesh.
KEYS = {
    "weights": "config.pretrained.dtype, config.mesh.fsdp, config.mesh.tensor",
    "masters": "config.policies.master",
    "moments": "config.stages.moments, config.mesh.fsdp",
    "reference": "config.roles.*.kl",
    "slots": "config.engine.slots, config.engine.capacity",
    "copies": "config.engine.whole, config.engine.layers, config.engine.weights, config.generation.staleness",
    "moving": "config.generation.tensor, config.pretrained.dtype",
    "baselines": "config.evaluate.baselines, config.evaluate.reference_designs",
    "gradients": "config.mesh.fsdp, config.policies.layout",
    "update": "config.pack.micro_rows, config.pack.chunk, config.pack.remat",
    "sampling": "config.engine.admit_buckets, config.engine.prompt_buckets, config.engine.share",
}
REFUSALS = ("RESOURCE_EXHAUSTED", "HbmOom", "memory space hbm", "available HBM")  # words of XLA's, for want of memory


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes on one device, by what they are for: the names are those of `KEYS`."""

    items: dict[str, int]
    limit: float  # bytes that a device has; infinite where it does not say
    prefix: str = "memory/"  # of metrics
    phase: str = "this run"  # which part of it holds so much

    @property
    def total(self) -> int:
        return sum(self.items.values())

    def check(self) -> Plan:
        """This plan. Raises SettingsError if a device has not so much: what takes how much, and what to change."""
        if self.total <= self.limit:
            return self
        parts = [f"{name} {_size(size)} (see {KEYS[name]})" for name, size in self._largest()]
        raise SettingsError(
            f"{self.phase} needs {_size(self.total)} of a device's memory, and there are {_size(self.limit)}: "
            + "; ".join(parts)
        )

    def __str__(self) -> str:
        parts = [f"{name} {_size(size)}" for name, size in self._largest()]
        of = "" if math.isinf(self.limit) else f" of {_size(self.limit)}"
        return f"memory of a device in {self.phase}: {_size(self.total)}{of}: {', '.join(parts)}"

    def _largest(self) -> list[tuple[str, int]]:
        """What takes at least a hundredth, largest first."""
        ordered = sorted(self.items.items(), key=lambda item: -item[1])
        return [(name, size) for name, size in ordered if size and size >= 0.01 * self.total]

    def metrics(self) -> dict[str, float]:
        """Bytes by name."""
        found = {**self.items, "total": self.total} | ({} if math.isinf(self.limit) else {"limit": self.limit})
        return {f"{self.prefix}{name}": float(size) for name, size in found.items()}


def plans(
    settings: Settings, model: ModelConfig, roles: Sequence[str], mesh: Mesh | None, target: Mesh | None = None
) -> list[Plan]:
    """What a device will hold: one plan; or one for the devices that train, and one for those that only sample.

    `roles`: those whose weights are here. Of what the programs need for themselves only the gradients are known before
    they are compiled: see `measured`.
    """
    training = _training(settings, model, roles, mesh)
    sampling = _sampling(settings, model, roles, mesh, target, 1 + settings.generation.staleness)
    if mesh is not None and target is not None and _apart(mesh, target):
        training["moving"] = held(policies.shapes(settings, roles, model, regroup(mesh, target.shape["tensor"])))
        return [Plan(training, limit(mesh)), Plan(sampling, limit(target), "memory/sampling_devices/")]
    return [Plan(training | sampling, limit(mesh))]


def cold_start(settings: Settings, model: ModelConfig, roles: Sequence[str], mesh: Mesh | None) -> Plan:
    """What a device will hold in the cold start, which is before there are engines."""
    options, master = settings.cold_start, settings.policies.master
    weights = policies.shapes(settings, roles, model, mesh)
    whole = params.abstract(model, mesh)
    trained, base = (weights.adapters, whole) if options.into == "adapters" else ({"weights": whole}, None)
    with _in_force(mesh):
        states = [planned(x, options.optimizer, master) for x in trained.values()]
    return Plan(_learning(states, base), limit(mesh), phase="the cold start")


def final_table(
    settings: Settings, model: ModelConfig, roles: Sequence[str], mesh: Mesh | None, target: Mesh | None = None
) -> Plan:
    """What a device that samples will hold in the final table: no states, but perhaps a second set of weights."""
    given = settings, model, roles, mesh, target
    items, extra = _sampling(*given, sets=1), 0
    here = [mesh] if target is None else [target] if _apart(mesh, target) else [mesh, target]
    for place in here:
        weights = policies.shapes(settings, roles, model, place)
        extra += held(weights.adapters or weights.full)
    if settings.crosses and settings.policies.layout == "shared":
        extra += sum(_sampling(*given, sets=0).values())  # of a second engine
    if here[0] is mesh:
        items["weights"] = held(policies.shapes(settings, roles, model, mesh))
    if settings.evaluate.compares:
        items["baselines"] = extra
    return Plan(items, limit(target or mesh), phase="the final table")


def measured(plan: Plan, **programs: Iterable[jax.stages.Compiled]) -> Plan:
    """`plan` with what compiled programs need for themselves: the largest of all, since one runs at a time.

    `programs`: by their names in `KEYS`. Gradients are among what an update needs.
    """
    found = {name: max(map(temporary, compiled), default=0) for name, compiled in programs.items()}
    most = max(found, key=found.__getitem__)
    rest = {name: size for name, size in plan.items.items() if name != "gradients" or "update" not in found}
    return replace(plan, items=rest | {most: found[most]})


def too_large(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether the compiler says that a program does not fit on a device."""
    return any(words in str(error) for words in REFUSALS)


@contextlib.contextmanager
def compiling(*names: str) -> Iterator[None]:
    """Where programs are compiled that need what `names`, of `KEYS`, say. Raises SettingsError if one does not fit."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not too_large(error):
            raise
        raise SettingsError(
            f"a program does not fit into a device's memory: see {', '.join(KEYS[name] for name in names)} "
            f"({' '.join(str(error).split())[:300]})"
        ) from error


def temporary(program: jax.stages.Compiled) -> int:
    """Bytes that a program needs besides its arguments: temporaries, and results that replace no argument."""
    stats: Any = program.memory_analysis()
    return int(stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes)


def held(tree: Any) -> int:
    """Bytes on one device of arrays, or of shapes with layouts."""
    return sum(math.prod(_piece(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def limit(mesh: Mesh | None) -> float:
    """Bytes that a device of this process has. Simulated devices share those of the machine or the container."""
    device = jax.local_devices()[0] if mesh is None else mesh.local_devices[0]
    if device.platform == "cpu":
        room = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        with contextlib.suppress(OSError, ValueError):  # no container, or one without a bound ("max")
            room.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
        return min(room) / jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit", math.inf)


def _training(settings: Settings, model: ModelConfig, roles: Sequence[str], mesh: Mesh | None) -> dict[str, int]:
    names, master = settings.role_names, settings.policies.master
    weights = policies.shapes(settings, roles, model, mesh)
    with _in_force(mesh):
        states = [
            abstract(x, {role: settings.roles[role] for role in served(name, names)}, settings.stages.moments, master)
            for name, x in (weights.adapters or weights.full).items()
        ]
    return _learning(states, weights.base)


def _learning(states: Sequence[TrainState], base: Params | None) -> dict[str, int]:
    """What training holds: states, the frozen weights below them, and gradients."""
    floats = [jax.tree.map(lambda w: w.update(dtype=jnp.dtype("float32")), state.params) for state in states]
    return {
        "weights": held([base, *(state.params for state in states)]),
        "masters": held([state.master for state in states]),
        "moments": held([state.opt_states for state in states]),
        "reference": held([state.reference for state in states]),
        "gradients": 2 * max(map(held, floats), default=0),  # of one pass, and their sum
    }


def _sampling(
    settings: Settings, model: ModelConfig, roles: Sequence[str], mesh: Mesh | None, target: Mesh | None, sets: int
) -> dict[str, int]:
    """What engines hold; on a `target` of their own there are also so many sets of all weights."""
    options = settings.engine if target is None else replace(settings.engine, whole=False)  # nothing cuts d_model there
    weights = policies.shapes(settings, roles, model, target or mesh)
    full = weights.full
    with _in_force(target or mesh):
        kernel = kernels.for_decoding(options.decode_attention, model)
        shape = options.slots, options.row, settings.reshaped
        slots = held(jax.eval_shape(partial(empty_state, model, kernel, *shape)))
        whole = [jax.eval_shape(partial(params.whole, model), x) if options.whole else x for x in full.values()]
    copies = sets * held(weights) if target is not None else held(whole) if options.whole else 0
    copies += held(weights.adapters)  # the engine's, of all roles together
    if options.weights == "int8":
        whole = [jax.eval_shape(partial(in_eight_bits, model), x) for x in whole]
        copies += held([leaf for leaf in jax.tree.leaves(whole) if leaf.dtype == jnp.int8])
    if options.separates(jax.default_backend()):
        copies += held([x["layers"] for x in whole])
    return {"slots": len(full) * slots, "copies": copies}


def _apart(mesh: Mesh | None, target: Mesh) -> bool:
    """Whether devices that sample do nothing else."""
    return mesh is None or set(mesh.devices.flat).isdisjoint(target.devices.flat)


def _piece(leaf: Any) -> tuple[int, ...]:
    """The shape of what one device has of an array."""
    return leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)


def _in_force(mesh: Mesh | None) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def _size(count: float) -> str:
    """Bytes for people."""
    unit = next(unit for unit in (1e9, 1e6, 1e3) if count >= unit or unit == 1e3)
    return f"{count / unit:.3g} {'GMk'[round((9 - math.log10(unit)) / 3)]}B"
