"""Every key of a run with its default: what other configs start from, not a run by itself.

Two things have no default: a config that starts from here names a published checkpoint (`pretrained.path`), or gives
all constants of a model (`model`); without either, or with one constant missing, the run stops and says so.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from metaagentx import settings
from metaagentx.teams.options import TeamOptions


def get_config(team: TeamOptions | None = None) -> ConfigDict:
    """`team`: who works together, each role with sections of its own; None: designs are written and run."""
    return ConfigDict(settings.defaults(team))
