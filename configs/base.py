"""Every key of a run with its default: what other configs start from, not a run by itself.

The model's constants have no defaults: a config that starts from here must give them, or the run stops with the
name of the one that is missing.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from metaagentx import settings


def get_config() -> ConfigDict:
    return ConfigDict(settings.defaults())
