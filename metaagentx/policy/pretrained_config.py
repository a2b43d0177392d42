"""The model's constants from a published checkpoint, whatever its format."""

from __future__ import annotations

from pathlib import Path

from metaagentx.policy import hf_config
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.errors import NoConfig
from metaagentx.policy.hub import resolve


def read_config(path: str | Path, dtype: str) -> ModelConfig:
    """The constants of a checkpoint; `path` as in `hub.resolve`.

    Args:
      path: a Hugging Face directory, a .gguf file, a Hub id, or "smollm2".
      dtype: "bfloat16" or "float32", of weights and activations here; the file's own is not asked.

    Raises:
      NoConfig: the directory has no config.json.
      ValueError: what the file says is not supported; see `hf_config` and `gguf`.
    """
    path = resolve(path)
    if path.suffix == ".gguf":
        from metaagentx.policy.gguf import read_gguf_config

        return read_gguf_config(path, dtype)
    if not (path / "config.json").is_file():
        raise NoConfig(f"{path} has no config.json, which says what model its weights are; copy the model's")
    return hf_config.read_config(path, dtype)
