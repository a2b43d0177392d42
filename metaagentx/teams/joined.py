"""A run in a store, and whether a config is the one that it began with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from metaagentx.sections import SettingsError, differences, plain
from metaagentx.settings import Settings
from metaagentx.teams.options import TeamOptions
from metaagentx.teams.store import Store

AGREED = ("seed", "task", "team", "train", "stages")  # sections in which the configs of a run's servers are the same


@contextlib.contextmanager
def joined(settings: Settings, team: TeamOptions, url: str, run: str, who: str) -> Iterator[Store]:
    """The store for `who` to use, in which no run of this name has another config. Nothing is bound to this one yet."""
    try:
        store = Store(url, run, team.exchange, who)
    except ValueError as error:
        raise SettingsError(f"--store: {error}") from error
    try:
        _compare(settings, store.about())
        yield store
    finally:
        store.close()


def agree(settings: Settings, store: Store) -> None:
    """Say what the run is about, if nobody has. Raises SettingsError if it is about something else."""
    _compare(settings, store.agree(json.dumps(_agreed(settings))))


def unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """`sections.differences`, but for how servers work together, which may change as long as what they learn does not.

    Of `team.exchange` that leaves `staleness`.
    """
    return differences(_lasting(ours), _lasting(theirs))


def _lasting(values: Mapping[str, Any]) -> Mapping[str, Any]:
    team = values.get("team")
    if not team:
        return values
    return {**values, "team": {**team, "exchange": {"staleness": team["exchange"]["staleness"]}}}


def _agreed(settings: Settings) -> dict[str, Any]:
    return {section: value for section, value in plain(settings).items() if section in AGREED}


def _compare(settings: Settings, said: str | None) -> None:
    changed = [] if said is None else unlike(_agreed(settings), json.loads(said))
    if changed:
        listed = "\n  ".join(changed[:8])
        raise SettingsError(f"the run in the store has another config; give another --run, or change back:\n  {listed}")
