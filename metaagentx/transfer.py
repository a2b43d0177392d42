"""Weights go from the devices that train to those that sample: device to device, never through a host.

One jitted program cuts them on the devices that train as those that sample want them, and every piece then moves as it
is. The program runs on no sampling device, so that none of them waits for an update that is still being computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from metaagentx.mesh import AXES
from metaagentx.policies import BASE, Weights
from metaagentx.policy import adapters, params
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.policy.params import Params


class Way(Protocol):
    """How weights come to where replies are sampled."""

    def bring(self, weights: Weights) -> Weights:
        """These weights there; themselves where they are there already."""
        ...

    def free(self, weights: Weights) -> None:
        """Give back the memory of what `bring` returned, but for a base, on which other weights rest."""
        ...


class Stay:
    """Sampling and training share all devices: nothing moves, and updates themselves take old weights away."""

    def bring(self, weights: Weights) -> Weights:
        return weights

    def free(self, weights: Weights) -> None:
        """Nothing was made."""


class Transfer:
    """From the mesh `source` to `target`: other devices, or this process's own, in copies that are cut by tensor alone.

    While weights move, each device of `source` holds one more piece of them: 1 / tensor of the whole. A process's own
    devices then hold a copy between them, and it stays.
    """

    def __init__(self, model: ModelConfig, lora: LoraOptions | None, source: Mesh, target: Mesh) -> None:
        self.model, self.lora, self.target = model, lora, target
        self._between = regroup(source, target.shape["tensor"])
        self._stays = not set(source.devices.flat).isdisjoint(target.devices.flat)
        self._base: tuple[Params, Params] | None = None  # the last base and what came of it: it crosses once

    def bring(self, weights: Weights) -> Weights:
        full = {name: self._base_of(x) if name == BASE else self._move(x, None) for name, x in weights.full.items()}
        return Weights(full, {role: self._move(x, self.lora) for role, x in weights.adapters.items()})

    def free(self, weights: Weights) -> None:
        for name, trained in {**weights.full, **weights.adapters}.items():
            if name != BASE:
                jax.tree.map(lambda x: x.delete(), trained)

    def _base_of(self, base: Params) -> Params:
        if self._base is None or all(base is not known for known in self._base):
            self._base = base, self._move(base, None)
        return self._base[1]

    def _move(self, tree: Params, lora: LoraOptions | None) -> Params:
        if jax.tree.leaves(tree)[0].sharding.mesh == self.target:
            return tree
        pieces = _recut(self.model, lora, self._between)(tree)
        there = layout(self.model, lora, self.target)
        moved: Params = jax.tree.map(_own, pieces, there) if self._stays else jax.device_put(pieces, there)
        return moved


def layout(model: ModelConfig, lora: LoraOptions | None, mesh: Mesh) -> Mapping[str, Any]:
    """The `NamedSharding` of every array of weights, or with `lora` of one adapter."""
    return params.shardings(model, mesh) if lora is None else adapters.shardings(model, lora, mesh)


def regroup(mesh: Mesh, tensor: int) -> Mesh:
    """The devices of `mesh` in their order as copies of weights that are cut `tensor` ways: D / tensor x 1 x tensor.

    Raises:
      ValueError: naming `generation.tensor`, if it does not divide the number of devices.
    """
    devices = mesh.devices.flatten()
    if devices.size % tensor:
        raise ValueError(
            f"generation.tensor ({tensor}) must divide the {devices.size} devices that train: each piece of the "
            "weights moves from one device to another"
        )
    return Mesh(np.reshape(devices, (-1, 1, tensor)), AXES, axis_types=mesh.axis_types)


def own_part(mesh: Mesh, process: int) -> Mesh:
    """The copies of a mesh as `regroup` makes it that a process holds.

    Raises:
      ValueError: naming `generation.tensor`, if a copy is spread over several processes.
    """
    holders = [{device.process_index for device in copy.flat} for copy in mesh.devices]
    if any(len(several) > 1 for several in holders):
        tensor = mesh.shape["tensor"]
        raise ValueError(f"generation.tensor ({tensor}) must divide each process's devices, which lie side by side")
    own = mesh.devices[[several == {process} for several in holders]]
    return Mesh(own, AXES, axis_types=mesh.axis_types)


def _own(x: jax.Array, there: NamedSharding) -> jax.Array:
    """The pieces of `x` on the devices of `there`, which hold all of it, as an array of theirs. Nothing is copied."""
    pieces = {shard.device: shard.data for shard in x.addressable_shards}
    return jax.make_array_from_single_device_arrays(
        x.shape, there, [pieces[device] for device in there.mesh.devices.flat]
    )


@lru_cache(maxsize=8)
def _recut(model: ModelConfig, lora: LoraOptions | None, mesh: Mesh) -> Any:
    # A copy even of what is cut as it should be: updates donate the one, and `free` deletes the other.
    shardings: dict[str, NamedSharding] = dict(layout(model, lora, mesh))
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)
