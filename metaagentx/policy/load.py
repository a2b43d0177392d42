"""Published weights into the model's tree: checked against headers first, then streamed shard by shard.

A process reads only the slices of its own devices, one shard of one array at a time. Neither a host nor a device ever
holds more than its own part of the weights and that one shard.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from metaagentx.policy.config import ModelConfig
from metaagentx.policy.errors import (
    MissingTensors,
    TiedHeadDiffers,
    UnexpectedTensors,
    WrongDtype,
    WrongShape,
    some,
)
from metaagentx.policy.hub import resolve
from metaagentx.policy.params import Params, shardings
from metaagentx.policy.spec import Spec, table
from metaagentx.policy.tensors import Slices, Tensor, open_safetensors

DTYPES = ("BF16", "F16", "F32")  # on disk; in memory, the config's
BUFFERS = re.compile(r".*\.rotary_emb\.inv_freq")  # old exports store what the config says already
COMPARED = 4096  # rows of a tied head compared at a time


def load(path: str | Path, config: ModelConfig, mesh: Mesh | None = None) -> Params:
    """The weights of a Hugging Face directory, a .gguf file or a Hub id, in `config.dtype`, laid out on `mesh`.

    Everything is checked from the files' headers before the first tensor is read. All processes of `mesh` call it.

    Raises:
      WeightsError: one of its classes, see `errors`.
    """
    path = resolve(path)
    tensors = open_tensors(path)
    check(tensors, config, path)
    specs, tree = jax.tree.flatten(table(config))
    places = [None] * len(specs) if mesh is None else jax.tree.leaves(shardings(config, mesh))
    return jax.tree.unflatten(
        tree, [stream(tensors, spec, where, config.dtype) for spec, where in zip(specs, places, strict=True)]
    )


def open_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its Hugging Face name, unread."""
    if path.suffix == ".gguf":
        from metaagentx.policy.gguf import open_gguf

        return open_gguf(path)
    return open_safetensors(path)


def check(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> None:
    """That `tensors` are the weights of `config`, exactly. Only a head beside tied embeddings is read, to compare it.

    Raises:
      MissingTensors, UnexpectedTensors, WrongShape, WrongDtype, TiedHeadDiffers: with the first few names.
    """
    expected = {name: shape for spec in jax.tree.leaves(table(config)) for name, shape in named(spec)}
    head, embedding = (table(dataclasses.replace(config, tied_embeddings=False))[k].hf_name for k in ("head", "embed"))
    tied_head = config.tied_embeddings and head in tensors
    if tied_head:
        expected[head] = expected[embedding]

    headless = head in expected and head not in tensors
    hint = "; without a head, config.json must say tie_word_embeddings: true" if headless else ""
    match(tensors, expected, path, hint)
    if tied_head and not _equal(tensors[head], tensors[embedding]):
        raise TiedHeadDiffers(
            f"{path} ties its head to its embedding, yet {head} differs from {embedding}; "
            "if the head was trained on its own, config.json must say tie_word_embeddings: false"
        )


def match(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path, hint: str = "") -> None:
    """That `tensors` are those of `expected` (name to shape), no more and no fewer. `hint` ends a missing one's error.

    Raises:
      MissingTensors, UnexpectedTensors, WrongShape, WrongDtype: with the first few names.
    """
    if missing := expected.keys() - tensors.keys():
        raise MissingTensors(f"{path} lacks {some(missing)} of the {len(expected)} tensors of its config{hint}")
    if unexpected := {name for name in tensors.keys() - expected.keys() if not BUFFERS.fullmatch(name)}:
        raise UnexpectedTensors(f"{path} holds tensors that its config has no place for: {some(unexpected)}")
    if wrong := [
        f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if tensors[name].shape != shape
    ]:
        raise WrongShape(f"{path} does not fit its config: {some(wrong)}")
    if wrong := [f"{name} is {tensors[name].dtype}" for name in expected if tensors[name].dtype not in DTYPES]:
        raise WrongDtype(f"{path} must store {', '.join(DTYPES)}: {some(wrong)}")


def named(spec: Spec) -> list[tuple[str, tuple[int, ...]]]:
    """Hugging Face name and shape of every tensor that `spec` stacks."""
    stacked = spec.hf_name.count("{}")
    numbers = itertools.product(*map(range, spec.shape[:stacked]))
    return [(spec.hf_name.format(*number), spec.shape[stacked:]) for number in numbers]


def _equal(a: Tensor, b: Tensor) -> bool:
    starts, columns = range(0, a.shape[0], COMPARED), slice(0, a.shape[1])
    parts = ((slice(start, min(start + COMPARED, a.shape[0])), columns) for start in starts)
    return all(np.array_equal(a.read(part), b.read(part)) for part in parts)


def stream(tensors: Mapping[str, Tensor], spec: Spec, where: NamedSharding | None, dtype: str) -> jax.Array:
    """One array of weights, each shard read once and put where it lives before the next is read."""
    if where is None:
        return jax.device_put(_read(tensors, spec, (slice(None),) * len(spec.shape), dtype))
    owners: dict[tuple[Any, ...], list[jax.Device]] = defaultdict(list)
    for device, index in where.addressable_devices_indices_map(spec.shape).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index or (), spec.shape, strict=True))
        owners[bounds].append(device)
    shards = []
    for bounds, devices in owners.items():
        part = _read(tensors, spec, tuple(slice(*ends) for ends in bounds), dtype)
        shards += jax.block_until_ready([jax.device_put(part, device) for device in devices])
    return jax.make_array_from_single_device_arrays(spec.shape, where, shards, dtype=jnp.dtype(dtype))


def _read(tensors: Mapping[str, Tensor], spec: Spec, index: Slices, dtype: str) -> NDArray[Any]:
    """The part of an array at `index`: layers (and experts) from a tensor each, cut and cast on the way."""
    stacked = spec.hf_name.count("{}")
    numbers = [range(*part.indices(size)) for part, size in zip(index, spec.shape, strict=True)]
    out = np.empty([len(each) for each in numbers], jnp.dtype(dtype))
    for at in itertools.product(*(range(len(each)) for each in numbers[:stacked])):
        name = spec.hf_name.format(*(each[i] for each, i in zip(numbers[:stacked], at, strict=True)))
        out[at] = tensors[name].read(index[stacked:])
    return out
