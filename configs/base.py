"""Every key of a run with its default: what other configs start from, not a run by itself.

The model's constants have no defaults: a config that starts from here must give them, or the run stops with the
name of the one that is missing.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict, config_dict

from metaagentx import settings


def get_config() -> ConfigDict:
    return ConfigDict(_placeholders(settings.defaults()))


def _placeholders(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _placeholders(value)
        if isinstance(value, dict)
        else config_dict.required_placeholder(value)
        if isinstance(value, type)
        else value
        for key, value in tree.items()
    }
