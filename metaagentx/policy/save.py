"""The model's tree as a Hugging Face directory, which transformers, vLLM and `load` read."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from metaagentx.mesh import is_primary
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.hf_config import write_config
from metaagentx.policy.params import Params
from metaagentx.policy.spec import table
from metaagentx.policy.tensors import INDEX, SINGLE

SHARD_BYTES = 5 * 10**9  # of a file, as Hugging Face cuts them

# A tensor's name, and the array and leading indices that it is at. A "{}" in the name stands for an expert's number:
# one layer's experts lie on several devices, and are gathered together.
Piece = tuple[str, jax.Array, tuple[int, ...]]


def save(
    directory: str | Path,
    params: Params,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write weights (in `config.dtype`), config.json and the tokenizer. The directory appears whole or not at all.

    Tensors are gathered one at a time; all processes of the mesh take part, and the first one writes, with one file's
    tensors in its memory. A tied head is not written: it is the embedding.

    Raises:
      FileExistsError: `directory` exists.
      ValueError: `params` are not the weights of `config`, or no published family is built as `config` is.
    """
    described = _config(config, tokenizer)
    files = _files(params, config, shard_bytes)
    with new_directory(Path(directory)) as partial:
        for name, pieces in files.items():
            write_tensors(partial / name, pieces, config.dtype)
        if is_primary():
            if len(files) > 1:
                write_json(partial / INDEX, _index(files, config))
            write_json(partial / "config.json", described)
            if tokenizer is not None:
                tokenizer.save_pretrained(partial)


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Where the first process writes what becomes `directory` when all have left the context without an error.

    Raises:
      FileExistsError: `directory` exists.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} exists; weights are saved to a new directory")
    _meet(f"saving {directory}")  # no process may find the directory that another has finished
    partial = directory.with_name(f".{directory.name}.partial")
    if is_primary():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    yield partial
    if is_primary():
        partial.rename(directory)
    _meet(f"saved {directory}")


def write_tensors(path: Path, pieces: Iterable[Piece], dtype: str) -> None:
    """One safetensors file of `pieces`, gathered one at a time by all processes and written by the first."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, array, at in pieces:
        value = _gather(array, at)
        if is_primary():
            whole = np.asarray(value).astype(jnp.dtype(dtype))
            tensors |= {name.format(*expert): whole[expert] for expert in _experts(name, whole.shape)}
    if is_primary():
        save_file(tensors, path, metadata={"format": "pt"})  # transformers wants a format


def _meet(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def _files(params: Params, config: ModelConfig, limit: int) -> dict[str, list[Piece]]:
    """File names, and what goes into each: as many tensors in order as fit."""
    groups: list[list[Piece]] = [[]]
    filled = 0
    for piece in _pieces(params, config):
        size = _bytes(piece, config)
        if filled and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {f"model-{i + 1:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups)}


def _pieces(params: Params, config: ModelConfig) -> Iterator[Piece]:
    """Every tensor: what stands alone, then layer after layer."""
    pairs = jax.tree.leaves(
        jax.tree.map(lambda spec, array: (spec, array), table(config), params), is_leaf=lambda x: isinstance(x, tuple)
    )
    for spec, array in pairs:
        if not isinstance(array, jax.Array) or array.shape != spec.shape:
            found = f"of shape {array.shape}" if isinstance(array, jax.Array) else f"{type(array).__name__}"
            raise ValueError(
                f"{spec.hf_name} must be an array of shape {spec.shape}, not {found}; merge adapters first"
            )
    for layer in (None, *range(config.layers)):
        for spec, array in pairs:
            stacked = spec.hf_name.count("{}")
            if layer is None and not stacked:
                yield spec.hf_name, array, ()
            elif layer is not None and stacked:
                yield spec.hf_name.format(layer, "{}"), array, (layer,)


def _experts(name: str, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Leading indices of the tensors in one of `shape`: one for each "{}" in its name."""
    return np.ndindex(*shape[: name.count("{}")])


def _bytes(piece: Piece, config: ModelConfig) -> int:
    _, array, at = piece
    return int(np.prod(array.shape[len(at) :])) * jnp.dtype(config.dtype).itemsize


def _gather(array: jax.Array, at: tuple[int, ...]) -> jax.Array:
    """`array[at]`, whole on every device."""
    where = array.sharding
    if isinstance(where, NamedSharding) and isinstance(where.mesh, Mesh):
        with jax.set_mesh(where.mesh):
            return _pick(array, at)
    return _pick(array, at)


@jax.jit
def _pick(array: jax.Array, at: tuple[int, ...]) -> jax.Array:
    for i in at:
        array = jax.lax.dynamic_index_in_dim(array, i, keepdims=False)
    return array if jax.sharding.get_abstract_mesh().empty else jax.sharding.reshard(array, PartitionSpec())


def _index(files: dict[str, list[Piece]], config: ModelConfig) -> dict[str, Any]:
    total = sum(_bytes(piece, config) for pieces in files.values() for piece in pieces)
    weight_map = {
        name.format(*expert): file
        for file, pieces in files.items()
        for name, array, at in pieces
        for expert in _experts(name, array.shape[len(at) :])
    }
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def _config(config: ModelConfig, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """config.json; servers read from it which token ends a reply."""
    ids = {} if tokenizer is None else {k: getattr(tokenizer, k) for k in ("bos_token_id", "eos_token_id")}
    return {**write_config(config), **{name: id for name, id in ids.items() if id is not None}}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented, for people."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
