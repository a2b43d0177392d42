"""Who speaks: a model's constants and its tokenizer, found from the settings before any weights are read."""

from __future__ import annotations

from dataclasses import replace

from metaagentx.policy import tokenizer
from metaagentx.policy.adapters import target_names
from metaagentx.policy.chat import Chat
from metaagentx.policy.config import ModelConfig
from metaagentx.policy.hub import resolve
from metaagentx.policy.load import check, open_tensors
from metaagentx.policy.pretrained_config import read_config
from metaagentx.policy.pretrained_tokenizer import check_vocabulary, read_tokenizer
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings
from metaagentx.tasks.pieces import pieces


def speaker(settings: Settings) -> tuple[ModelConfig, Chat]:
    """The model's constants and its tokenizer. A checkpoint's files are checked. Raises SettingsError."""
    if settings.model is not None:
        model, spoken = settings.model, tokenizer.build(pieces(settings.task.kind), "", settings.model.max_length)
        if len(spoken) != model.vocab_size:
            raise SettingsError(
                f"config.model.vocab_size must be the tokenizer's {len(spoken)}, not {model.vocab_size}"
            )
        _check_targets(settings, model)
        return model, Chat(spoken)
    path = resolve(settings.pretrained.path)
    model = _within_context(settings, read_config(path, settings.pretrained.dtype))
    _check_targets(settings, model)
    published = read_tokenizer(path)
    check_vocabulary(published, model)
    check(open_tensors(path), model, path)
    return model, Chat(published, thinking=settings.pretrained.thinking)


def _check_targets(settings: Settings, model: ModelConfig) -> None:
    if settings.policies.layout == "adapters":
        try:
            target_names(model, settings.policies.lora)
        except ValueError as error:
            raise SettingsError(f"config.policies.{error}") from error


def _within_context(settings: Settings, model: ModelConfig) -> ModelConfig:
    """A checkpoint's constants, with the run's own bound on lengths."""
    wanted = settings.pretrained.max_length or model.max_length
    for key, length in (("pretrained.max_length", wanted), ("engine.capacity", settings.engine.capacity)):
        if length > model.max_length:
            raise SettingsError(f"config.{key} ({length}) exceeds the checkpoint's context ({model.max_length})")
    if settings.engine.capacity > wanted:
        raise SettingsError(
            f"config.engine.capacity ({settings.engine.capacity}) exceeds config.pretrained.max_length ({wanted})"
        )
    return replace(model, max_length=wanted)
