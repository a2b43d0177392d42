"""A run in a store, and whether a config is the one that it began with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from metaagentx.sections import SettingsError, differences, plain
from metaagentx.settings import Settings
from metaagentx.teams.options import TeamOptions
from metaagentx.teams.store import Store

AGREED = ("seed", "task", "team", "train", "stages")  # sections in which the configs of a run's servers are the same


@contextlib.contextmanager
def joined(settings: Settings, team: TeamOptions, url: str, run: str, who: str) -> Iterator[Store]:
    """The store for `who` to use, once it is sure that the run in it is this one."""
    ours = {section: value for section, value in plain(settings).items() if section in AGREED}
    try:
        store = Store(url, run, team.exchange, who)
    except ValueError as error:
        raise SettingsError(f"--store: {error}") from error
    try:
        changed = differences(ours, json.loads(store.agree(json.dumps(ours))))
        if changed:
            listed = "\n  ".join(changed[:8])
            raise SettingsError(
                f"run {run!r} in the store has another config; give another --run, or change back:\n  {listed}"
            )
        yield store
    finally:
        store.close()
