"""Small Hugging Face checkpoints, written by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from metaagentx.policy import spec
from metaagentx.policy.config import ModelConfig


def tensors(config: ModelConfig, seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random values for every tensor that Hugging Face would store, named and cut as it does."""
    draw = np.random.default_rng(seed)
    out = {}
    for each in jax.tree.leaves(spec.table(config)):
        stacked = each.hf_name.count("{}")
        for number in itertools.product(*map(range, each.shape[:stacked])):
            out[each.hf_name.format(*number)] = draw.standard_normal(each.shape[stacked:]).astype(dtype)
    return out


def write(directory: Path, files: dict[str, dict[str, np.ndarray]], index: dict[str, str] | None = None) -> Path:
    """`files`: tensors by file name. Several files get an index of all they hold (or `index`)."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        save_file(content, directory / name, metadata={"format": "pt"})
    if index is None:
        index = {tensor: name for name, content in files.items() for tensor in content}
    if list(files) != ["model.safetensors"]:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return directory


def single(directory: Path, content: dict[str, np.ndarray]) -> Path:
    return write(directory, {"model.safetensors": content})


def halves(content: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Two files with every other tensor: layers lie scattered over them."""
    names = list(content)
    return {f"model-{i + 1:05}-of-00002.safetensors": {name: content[name] for name in names[i::2]} for i in range(2)}
