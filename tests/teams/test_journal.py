"""What a journal keeps, and what it lets go."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from metaagentx.rollout.trajectory import Trajectory
from metaagentx.teams.journal import Entry, Journal
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
