"""What a journal keeps, and what it lets go."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from metaagentx.rollout.trajectory import Trajectory
from metaagentx.teams import database
from metaagentx.teams.journal import Entry, Journal
from metaagentx.teams.recall import Answers
from metaagentx.teams.records import SubTask
from metaagentx.workflow.protocol import Outcome

ROW = Trajectory(
    np.array([3, 1, 4], np.int32),
    np.array([False, True, True]),
    np.array([0, -0.5, -1e-30], np.float32),
    "sub",
    "solver",
    1,
    2,
    3,
    4,
    5,
    Outcome.CUT,
    np.array([0, 0.25, 0.125], np.float32),
)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def entry(key="a", step=0, reply="4", trajectory=ROW):
    return Entry(SubTask(key, "sub", step, "rollout", "{}"), reply, 5, trajectory)


@pytest.mark.parametrize("row", [ROW, replace(ROW, kept=None), None])
def test_a_sample_comes_back_bit_for_bit(journal, row):
    journal.put(entry(trajectory=row))
    back = journal.get(["a"])["a"].trajectory
    if row is None:
        assert back is None
        return
    for item in fields(Trajectory):
        ours, theirs = getattr(row, item.name), getattr(back, item.name)
        if isinstance(ours, np.ndarray):
            assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())
        else:
            assert (ours, type(ours)) == (theirs, type(theirs))


def test_what_was_journaled_first_stays(journal):
    assert journal.put(entry(reply="4")).reply == "4"
    assert journal.put(entry(reply="5", trajectory=None)).reply == "4"
    assert journal.get(["a", "b"]).keys() == {"a"}


def test_tokens_of_old_steps_are_let_go_and_texts_stay(journal):
    for step in range(3):
        journal.put(entry(f"{step}", step))
    journal.forget(2)
    kept = journal.entries()
    assert [each.trajectory is None for each in kept] == [True, True, False]
    assert [each.reply for each in kept] == ["4"] * 3


@pytest.mark.parametrize("open_file", [Journal, Answers])
def test_a_file_of_one_server_may_be_on_a_network_file_system(open_file, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "file_system", lambda path: "nfs4")
    monkeypatch.setattr(database, "TOLD", 0.1)
    path = tmp_path / "own.db"
    for _ in range(2):
        own = open_file(path)
        own.forget(1)
        (mode,) = own._database.look("PRAGMA journal_mode", {})
        assert mode == ("truncate",)
        assert {each.name for each in tmp_path.iterdir()} <= {"own.db", "own.db-journal"}
        with pytest.raises(ValueError, match=r"own\.db cannot be used: database is locked"):
            open_file(path)
        own.close()


def test_a_journal_goes_with_its_work_directory_to_a_network_file_system(journal, tmp_path, monkeypatch):
    journal.put(entry())
    (tmp_path / "mount").mkdir()
    for file in tmp_path.glob("journal.db*"):  # as a server that was killed leaves them
        shutil.copy(file, tmp_path / "mount")
    assert (tmp_path / "mount" / "journal.db-wal").stat().st_size > 0
    monkeypatch.setattr(database, "file_system", lambda path: "nfs4")
    moved = Journal(tmp_path / "mount" / "journal.db")
    assert moved.put(entry("b")).reply == "4"
    assert [each.task.key for each in moved.entries()] == ["a", "b"]
    moved.close()


NEVER_ENDS = """
import sys
from pathlib import Path
from metaagentx.teams import database
from tests.teams.test_journal import Journal, entry
database.file_system = lambda path: "nfs4"
journal = Journal(Path(sys.argv[1]))
for number in range(1000):
    journal.put(entry(f"{number:04}"))
    print(number, flush=True)
"""


def test_what_a_server_on_a_network_file_system_wrote_is_there_after_it_was_killed(tmp_path, monkeypatch):
    path = tmp_path / "journal.db"
    with subprocess.Popen([sys.executable, "-c", NEVER_ENDS, str(path)], stdout=subprocess.PIPE, text=True) as server:
        said = [int(server.stdout.readline()) for _ in range(20)]
        server.kill()
        said += [int(line) for line in server.stdout if line.endswith("\n")]
    monkeypatch.setattr(database, "file_system", lambda path: "nfs4")
    journal = Journal(path)
    assert [each.task.key for each in journal.entries()][: len(said)] == [f"{number:04}" for number in said]
    assert len(journal.entries()) <= len(said) + 1
    journal.close()
