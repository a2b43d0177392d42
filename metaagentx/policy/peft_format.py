"""Adapters as PEFT's directories (adapter_model.safetensors and adapter_config.json), which PEFT and vLLM read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from metaagentx.mesh import is_primary
from metaagentx.policy.adapters import linear_names, shardings, table
from metaagentx.policy.config import LoraOptions, ModelConfig
from metaagentx.policy.errors import DamagedFile, MissingFile, UnexpectedTensors, some
from metaagentx.policy.hf_config import MissingConstant, UnsupportedSetting
from metaagentx.policy.load import match, named, stream
from metaagentx.policy.params import Params
from metaagentx.policy.save import new_directory, write_json, write_tensors
from metaagentx.policy.spec import Spec
from metaagentx.policy.tensors import open_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"

# What adapter_config.json says about the computation, with the values that mean the computation of `adapters`.
FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),  # other ways to start change the base too
}
# About training, bookkeeping, or a feature that another key turns on. The tensors' names say what is targeted.
WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "target_modules", "task_type",
}  # fmt: skip
OFF: tuple[Any, ...] = (None, False, {}, [])


def save_adapter(
    directory: str | Path, adapter: Params, options: LoraOptions, config: ModelConfig, base: str | None
) -> None:
    """Write one adapter in its own dtype. All processes of its mesh take part; the directory appears whole or not.

    Args:
      base: directory or Hub name of the weights that it belongs to, for tools that load both.

    Raises:
      FileExistsError: `directory` exists.
    """
    specs = table(config, options)
    pairs: list[tuple[Spec, jax.Array]] = [
        (spec, adapter[name][part]) for name, pair in specs.items() for part, spec in pair.items()
    ]
    pieces = [(spec.hf_name.format(i), array, (i,)) for i in range(config.layers) for spec, array in pairs]
    with new_directory(Path(directory)) as partial:
        write_tensors(partial / WEIGHTS, pieces, pairs[0][1].dtype.name)
        if is_primary():
            modules = [pair["a"].hf_name.split(".")[-3] for pair in specs.values()]
            write_json(partial / CONFIG, _describe(options, modules, base))


def _describe(options: LoraOptions, modules: list[str], base: str | None) -> dict[str, Any]:
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(options.alpha) if options.alpha.is_integer() else options.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": options.rank,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def load_adapter(directory: str | Path, config: ModelConfig, mesh: Mesh | None = None) -> tuple[Params, LoraOptions]:
    """An adapter for a model of `config`, float32 and laid out on `mesh`, and the options that describe it.

    Raises:
      MissingFile, DamagedFile, MissingConstant: a file or key is not there, or not what it should be.
      UnsupportedSetting: a setting changes what the adapter computes (DoRA, rsLoRA, biases, ranks by layer, ...).
      MissingTensors, UnexpectedTensors, WrongShape, WrongDtype: the tensors are not one pair for each targeted matrix.
    """
    directory = Path(directory)
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise MissingFile(f"{directory} has no {name}: it is no adapter as PEFT saves it")
    rank, alpha = _read_config(directory / CONFIG)
    path = directory / WEIGHTS
    tensors = open_file(path)
    possible = table(config, LoraOptions(rank, alpha, "|".join(linear_names(config))))
    targets = [name for name, pair in possible.items() if not tensors.keys().isdisjoint(_names(pair))]
    if not targets:
        raise UnexpectedTensors(f"{path} adapts none of {', '.join(possible)} of its model; it holds {some(tensors)}")
    options = LoraOptions(rank, alpha, "|".join(targets))
    specs, tree = jax.tree.flatten(table(config, options))
    match(tensors, {name: shape for spec in specs for name, shape in named(spec)}, path)
    places = [None] * len(specs) if mesh is None else jax.tree.leaves(shardings(config, options, mesh))
    arrays = [stream(tensors, spec, where, "float32") for spec, where in zip(specs, places, strict=True)]
    return jax.tree.unflatten(tree, arrays), options


def _names(pair: dict[str, Spec]) -> set[str]:
    return {name for spec in pair.values() for name, _ in named(spec)}


def _read_config(path: Path) -> tuple[int, float]:
    """Rank and alpha."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFile(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise DamagedFile(f"{path} must hold a JSON object, not {type(raw).__name__}")
    rank, alpha = raw.pop("r", None), raw.pop("lora_alpha", None)
    if type(rank) is not int or rank < 1:
        raise MissingConstant(f"{path}: r must be a whole number above 0, not {rank!r}")
    if type(alpha) not in (int, float) or not alpha > 0:
        raise MissingConstant(f"{path}: lora_alpha must be a number above 0, not {alpha!r}")
    if "peft_type" not in raw:
        raise MissingConstant(f'{path}: peft_type must say "LORA", and is not there')
    for key, value in raw.items():
        if key not in WITHOUT_EFFECT and value not in FIXED.get(key, OFF):
            allowed = " or ".join(json.dumps(each) for each in FIXED.get(key, OFF[:2]))
            raise UnsupportedSetting(f"{path}: {key} must be {allowed}, not {value!r}; adapters here are plain LoRA")
    return rank, float(alpha)
