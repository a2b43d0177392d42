"""The store's benchmark does what it counts."""

from __future__ import annotations

from benchmarks import team_store
from benchmarks.team_store import Exchange
from metaagentx.teams.store import Store


def test_every_sub_task_that_is_counted_was_done_by_a_worker(tmp_path, monkeypatch):
    url, runs = f"sqlite:///{tmp_path}/team.db", []

    class Watched(Store):
        def __init__(self, url, run):
            super().__init__(url, run)
            runs.append(run)

    monkeypatch.setattr(team_store, "Store", Watched)
    found = Exchange(url, workers=2).exchange(70)
    assert found["sub_tasks_per_second"] > 0
    done = Store(url, *runs)
    assert [report.text for _, report in done.tasks(0, "sub")] == [team_store.REPLY] * 70
    done.close()
