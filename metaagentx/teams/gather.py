"""One work directory of what a team's servers trained, as `metaagentx.train` leaves it: to evaluate, solve and export.

    python -m metaagentx.teams.gather --config=configs/tiny_team.py --workdir=runs/team/all \\
        --store=sqlite:///runs/team/team.db
    python -m metaagentx.evaluate --workdir=runs/team/all

The store says where each policy's newest checkpoint is, and its digest. The config is that of the servers, in a layout
that has room for all policies here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from metaagentx import command_line, policies
from metaagentx.checkpoint import CheckpointError, Checkpoints, claim, digest, forget
from metaagentx.policies import States
from metaagentx.sections import SettingsError, plain
from metaagentx.settings import Settings
from metaagentx.teams.joined import joined, unlike
from metaagentx.teams.records import Pointer
from metaagentx.workbench import open_workbench


def gather(settings: Settings, workdir: Path, url: str, run: str) -> None:
    """Make a work directory of the newest checkpoints that the store of a run points at.

    Raises:
      SettingsError: the store cannot be used, or holds no such run, or its policies stand at different steps.
      CheckpointError: a checkpoint is not there, or not the one that was published.
    """
    if settings.team is None:
        raise SettingsError("config.team is missing: only a team has servers of one policy each")
    with joined(settings, settings.team, url, run, "gathering") as store:
        found = [(policy, store.pointer(policy)) for policy in settings.team.learners]
    pointers = [pointer for _, pointer in found if pointer is not None]
    if len(pointers) < len(found) or len({pointer.version for pointer in pointers}) > 1:
        stand = ", ".join(f"{policy} at {pointer.version if pointer else 'none'}" for policy, pointer in found)
        raise SettingsError(f"the policies of run {run!r} are at different steps ({stand}): wait until all have ended")

    if settings.cold_start.steps and not settings.cold_start.weights_from:
        beginning = dataclasses.replace(settings.cold_start, weights_from=str(_workdir(pointers[0])))
        settings = dataclasses.replace(settings, cold_start=beginning)
    with claim(workdir, plain(settings), unlike), open_workbench(settings) as bench:
        states: States = policies.states(bench.fresh_weights(), settings)
        records: list[dict[str, Any]] = []
        for pointer in pointers:
            states[pointer.policy], record = _restored(pointer, states)
            records.append(record)
        _save(workdir, pointers[0].version, states, records)


def _workdir(pointer: Pointer) -> Path:
    """The work directory of a checkpoint's server."""
    return Path(pointer.uri).parent.parent


def _restored(pointer: Pointer, states: States) -> tuple[Any, dict[str, Any]]:
    own = {pointer.policy: states[pointer.policy]}
    restored, record = Checkpoints(Path(pointer.uri).parent, keep=1).restore(forget(own), pointer.version)
    if digest(policies.acting(restored, None).full) != pointer.digest:
        raise CheckpointError(f"the checkpoint {pointer.uri} is not the one that its server published")
    return restored[pointer.policy], record


def _save(workdir: Path, step: int, states: States, records: Sequence[dict[str, Any]]) -> None:
    """One checkpoint of all policies, with the main agent's history: its metrics are of the whole team."""
    place = records[0]["place"]
    for record in records[1:]:
        place["sizes"] |= record["place"]["sizes"]
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    checkpoints.save(step, states, {"place": place, "seed": records[0]["seed"], "history": records[0]["history"]})
    checkpoints.close()


def main(settings: Settings, workdir: Path) -> None:
    if not STORE.value:
        raise SettingsError("--store=URL is needed: what the servers share")
    gather(settings, workdir, STORE.value, RUN.value)


if __name__ == "__main__":
    STORE = flags.DEFINE_string("store", None, "What the servers shared.")
    RUN = flags.DEFINE_string("run", "team", "The run's name in the store.")
    command_line.run(main)
