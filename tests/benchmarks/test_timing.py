"""Contestants, their turns and what is written down."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks import timing
from benchmarks.timing import Bench, Device
from benchmarks.worker import Missing, Worker


class Counter:
    """A contestant."""

    def __init__(self, begin: int) -> None:
        self.count = begin

    def add(self, more: int) -> int:
        self.count += more
        return self.count

    def where(self) -> tuple[int, list[int]]:
        return os.getpid(), sorted(os.sched_getaffinity(0))

    def fail(self) -> None:
        raise ValueError("on purpose")

    def hold(self, megabytes: int) -> int:
        return len(b"\1" * (megabytes << 20))  # zeros might be pages that nobody has touched


class Sleeper:
    """A contestant that compiles for long."""

    def __init__(self, seconds: float) -> None:
        time.sleep(seconds)


class Mortal:
    """A contestant for which the memory does not suffice."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


HERE = f"{__name__}:Counter"


def bench(**given: object) -> Bench:
    options = {"repetitions": 2, "cores": 1, "clock": None, "without": [], "part": None, "limit": 100.0} | given
    return Bench("try_out", argparse.Namespace(**options), Device("cpu", "cpu", 1))


def test_a_contestant_keeps_its_state_on_its_core_in_its_process():
    core = min(os.sched_getaffinity(0))
    worker = Worker(HERE, [core], {}, begin=3)
    assert [worker.turn("add", 1).value, worker.turn("add", 2).value] == [4, 6]
    process, cores = worker.turn("where").value
    assert process != os.getpid()
    assert cores == [core]
    worker.close()


def test_memory_of_a_turn_is_not_that_of_the_turn_before():
    worker = Worker(HERE, [], {}, begin=0)
    large, small = worker.turn("hold", 200).peak, worker.turn("hold", 1).peak
    worker.close()
    if large == small:
        pytest.skip("the kernel does not let this process forget its peak")
    assert large - small > 150 << 20


def test_what_goes_wrong_there_is_said_here_and_the_contestant_lives_on():
    worker = Worker(HERE, [], {}, begin=0)
    with pytest.raises(RuntimeError, match="on purpose"):
        worker.turn("fail")
    assert worker.turn("add", 1).value == 1
    worker.close()
    with pytest.raises(Missing, match="no_such_package"):
        Worker("no_such_package:Anything", [], {})


def test_who_is_not_ready_in_time_is_left_out_and_ended():
    begun = time.monotonic()
    with pytest.raises(Missing, match="not ready after 1 s"):
        Worker(f"{__name__}:Sleeper", [], {}, limit=1, seconds=600)
    assert time.monotonic() - begun < 100


def test_who_dies_before_it_is_ready_is_left_out():
    with pytest.raises(Missing, match="ended with -9"):
        Worker(f"{__name__}:Mortal", [], {})


def test_turns_alternate_and_ratios_are_made_of_pairs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    run = bench(repetitions=3, clock="wall")
    order: list[str] = []
    worker = run.start("ours", HERE, begin=0)
    assert run.start("theirs", "no_such_package:Anything") is None

    def turn(name: str):
        order.append(name)
        return worker.turn("add", 1)

    turns = run.compare("adding", {"a": lambda: turn("a"), "b": lambda: turn("b")}, lambda t: t.value, "one")
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [t.value for t in turns["a"]] == [4, 5, 8]
    run.ratio("D1", [2.0, 3.0, 9.0], [1.0, 1.0, 9.0])
    run.ratio("C1/compilations", [1.0])
    path = run.finish()
    record = json.loads(path.read_text())
    assert path == tmp_path / "cpu" / "try_out.json"
    assert record["ratios"]["D1"] == {
        "what": timing.TARGETS["D1"].what,
        "ratio": 2.0,
        "range": [1.0, 3.0],
        "turns": 3,
        "gate": 2.0,
        "goal": 2.5,
        "reached": True,
        "goal_reached": False,
    }
    assert not record["ratios"]["C1/compilations"]["reached"]
    assert record["results"]["adding"]["a"]["median"] == 5
    assert record["skipped"].keys() == {"theirs"}
    assert "D1" in capsys.readouterr().out


def test_records_become_tables(monkeypatch, tmp_path):
    from benchmarks import table

    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    run = bench()
    run.ratio("D2", [1.6])
    run.finish()
    other = bench(part="tunix")
    other.ratio("D4/tunix", [4.5])
    assert other.finish().name == "try_out-tunix.json"
    (tmp_path / "page.md").write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["table", "--write"])
    table.main()
    page = Path(tmp_path / "page.md").read_text()
    assert "| D2 |" in page
    assert "| D4/tunix |" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
