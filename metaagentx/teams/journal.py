"""What a sub-agents' server keeps to itself: the tokens of every sub-task that it did, until they are trained on.

A sub-task is written here before it is handed in, so what the store calls done can be trained on, whenever its server
was killed. Arrays are stored as NumPy writes them, without pickle.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metaagentx.rollout.trajectory import Trajectory
from metaagentx.teams.database import Execute, Sqlite
from metaagentx.teams.records import SubTask
from metaagentx.workflow.protocol import Outcome

TABLE = """CREATE TABLE IF NOT EXISTS samples (
    key TEXT PRIMARY KEY, policy TEXT NOT NULL, step BIGINT NOT NULL, rollout TEXT NOT NULL, body TEXT NOT NULL,
    reply TEXT NOT NULL, version BIGINT NOT NULL, tokens BLOB)"""
PUT = """INSERT INTO samples (key, policy, step, rollout, body, reply, version, tokens)
    VALUES (:key, :policy, :step, :rollout, :body, :reply, :version, :tokens) ON CONFLICT (key) DO NOTHING"""
COLUMNS = "key, policy, step, rollout, body, reply, version, tokens"
ONE = f"SELECT {COLUMNS} FROM samples WHERE key = :key"
ALL = f"SELECT {COLUMNS} FROM samples ORDER BY key"
FORGET = "UPDATE samples SET tokens = NULL WHERE step < :step AND tokens IS NOT NULL"
ARRAYS = ("tokens", "loss_mask", "logprobs", "kept")
FIELDS = ("role", "agent", "turn", "question", "design", "execution", "version", "outcome")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One sub-task as its server did it."""

    task: SubTask
    reply: str  # as handed in
    version: int  # of the weights that did it
    trajectory: Trajectory | None  # None where `reply` counts no tokens, or they are forgotten


class Journal:
    """The samples of one server, in a file that one process has at a time."""

    def __init__(self, path: Path, who: str = "this program") -> None:
        """Raises ValueError: the file cannot be used there."""
        self._database = Sqlite(path, who, alone=True)
        self._database.run(lambda execute: execute(TABLE, {}))

    def close(self) -> None:
        self._database.close()

    def put(self, entry: Entry) -> Entry:
        """Keep `entry`, unless the sub-task is here already; returns what is kept."""
        task = entry.task
        values = {"key": task.key, "policy": task.policy, "step": task.step, "rollout": task.rollout}
        values |= {"body": task.body, "reply": entry.reply, "version": entry.version}

        def work(execute: Execute) -> Entry:
            execute(PUT, {**values, "tokens": _packed(entry.trajectory)})
            return _entry(execute(ONE, {"key": task.key}).found[0])

        return self._database.run(work)

    def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Those of these sub-tasks that are here."""

        def work(execute: Execute) -> dict[str, Entry]:
            return {key: _entry(row) for key in keys for row in execute(ONE, {"key": key}).found}

        return self._database.run(work)

    def entries(self) -> list[Entry]:
        """All of them, in the order of keys."""
        return self._database.run(lambda execute: [_entry(row) for row in execute(ALL, {}).found])

    def forget(self, step: int) -> None:
        """Let go of the tokens of all steps before `step`: texts and versions stay, for whoever audits the run."""
        self._database.run(lambda execute: execute(FORGET, {"step": step}))


def _entry(row: tuple) -> Entry:
    key, policy, step, rollout, body, reply, version, tokens = row
    return Entry(SubTask(key, policy, step, rollout, body), reply, version, _unpacked(tokens))


def _packed(trajectory: Trajectory | None) -> bytes | None:
    if trajectory is None:
        return None
    about = json.dumps({name: getattr(trajectory, name) for name in FIELDS})
    arrays = {name: array for name in ARRAYS if (array := getattr(trajectory, name)) is not None}
    file = io.BytesIO()
    np.savez(file, about=np.array(about), **arrays)
    return file.getvalue()


def _unpacked(data: bytes | None) -> Trajectory | None:
    if data is None:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        about = json.loads(str(found["about"]))
        arrays = {name: found[name] for name in ARRAYS if name in found}
    return Trajectory(**arrays, **about | {"outcome": Outcome(about["outcome"])})
