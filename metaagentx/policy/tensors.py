"""The tensors of a checkpoint by their Hugging Face names, described from the files' headers and not yet read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from metaagentx.policy.errors import DamagedFile, MissingFile, NeverSet, NoWeights, SetTwice, some

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Slices = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, unread. Its shape is Hugging Face's ([out, in] for matrices)."""

    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: "BF16", "F16", "F32", ...
    file: Path
    read: Callable[[Slices], NDArray[Any]]  # the part at one slice per dimension; nothing else is read


def open_safetensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of `model.safetensors`, or of the files that `model.safetensors.index.json` names.

    Raises:
      NoWeights, MissingFile, DamagedFile, NeverSet, SetTwice: see `errors`.
    """
    promised = _weight_map(directory)
    files = sorted(set(promised.values())) or [SINGLE]
    if absent := [name for name in files if not (directory / name).is_file()]:
        raise MissingFile(f"{directory / INDEX} names {some(absent)}: not there. Copy or download the rest")
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = open_file(directory / file)
        if twice := found.keys() & tensors.keys():
            raise SetTwice(f"{directory / file} and another file both hold {some(twice)}; one of them must go")
        tensors |= found
    if never := [f"{name} (in {file})" for name, file in promised.items() if not _holds(tensors, name, file)]:
        raise NeverSet(f"{directory / INDEX} promises what its files do not hold: {some(never)}")
    return tensors


def _weight_map(directory: Path) -> dict[str, str]:
    """Tensor to file name, from the index; empty for a single file."""
    if (directory / SINGLE).is_file():
        return {}
    index = directory / INDEX
    if not index.is_file():
        raise NoWeights(
            f"{directory} has neither {SINGLE} nor {INDEX}; weights in other formats (pytorch_model.bin) "
            "become these by loading them with transformers and `save_pretrained`"
        )
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f'{index} must be JSON with a "weight_map" from tensor to file: {error!r}') from error


def open_file(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file. Raises `DamagedFile`."""
    try:
        opened = safe_open(path, framework="numpy")  # checks that the header covers the file exactly
        return {name: _tensor(path, opened, name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedFile(
            f"{path} ({path.stat().st_size} bytes) is no complete safetensors file: {error}. "
            "A download that was cut, or a Git LFS pointer; fetch it again"
        ) from error


def _tensor(path: Path, opened: Any, name: str) -> Tensor:
    part = opened.get_slice(name)
    return Tensor(tuple(part.get_shape()), part.get_dtype(), path, lambda index: np.asarray(part[index]))


def _holds(tensors: dict[str, Tensor], name: str, file: str) -> bool:
    return name in tensors and tensors[name].file.name == Path(file).name
