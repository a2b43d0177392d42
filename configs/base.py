"""Every key of a run with its default: what other configs start from, not a run by itself.

Two things have no default: a config that starts from here names a published checkpoint (`pretrained.path`), or gives
all constants of a model (`model`); without either, or with one constant missing, the run stops and says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from metaagentx import settings


def get_config(roles: Sequence[str] = settings.ROLES) -> ConfigDict:
    """`roles`: those of the run, each of which has sections of its own."""
    return ConfigDict(settings.defaults(roles))
