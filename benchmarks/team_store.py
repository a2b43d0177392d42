"""What the store of a team's servers costs: sub-tasks a second through it, and how long servers of a tiny team wait.

    python -m benchmarks.team_store

A sub-task is put, leased, finished and reported: four transactions, of which the store acknowledges each when it is
safe on disk. Workers are processes with a connection each, as servers are, and do nothing but lease (up to four
sub-tasks at once) and finish. Then the main agent's and the sub-agents' server of configs/tiny_team.py train side by
side, on a core each if there are two: they measure for how much of a step each has nothing to do but wait. That takes a
quarter of an hour, most of it a cold start, before which a team hardly asks for anything.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import Bench, arguments, summary
from metaagentx.metrics import JsonLines
from metaagentx.teams.outbox import LATEST, SOONEST
from metaagentx.teams.records import SubTask
from metaagentx.teams.store import Store
from tests.teams.postgres import BINARIES, running

WORKERS = (1, 4, 16)
SUB_TASKS, DEPTH, BATCH = 256, 64, 4
BODY, REPLY = "b" * 1000, "r" * 2000  # characters
POLICIES = ("main", "sub")
CONFIG = "configs/tiny_team.py"


class Exchange:
    """A store, someone who puts sub-tasks and waits for reports, and workers in processes of their own."""

    def __init__(self, url: str, workers: int) -> None:
        self.url, self.numbers = url, itertools.count(time.time_ns())
        spawn = multiprocessing.get_context("spawn")
        self.runs, up = [spawn.SimpleQueue() for _ in range(workers)], spawn.SimpleQueue()
        for number, runs in enumerate(self.runs):
            spawn.Process(target=work, args=(url, number, runs, up), daemon=True).start()
        for _ in self.runs:
            up.get()

    def exchange(self, count: int) -> dict[str, float]:
        """Have so many sub-tasks done; sub-tasks a second, and the median milliseconds of a put and of a look.

        A put that offers nothing or of which nothing is taken, since enough wait, is not among them.
        """
        run = str(next(self.numbers))
        store = Store(self.url, run)
        store.agree("a benchmark")
        for runs in self.runs:
            runs.put(run)
        waiting = [SubTask(str(i), "sub", 0, str(i), BODY) for i in range(count)]
        awaited = [task.key for task in waiting]
        puts, looks, begun = [], [], time.perf_counter()
        while awaited:
            if waiting:
                start = time.perf_counter()
                taken = store.put(waiting[:DEPTH], DEPTH)
                if taken:
                    puts.append(time.perf_counter() - start)
                waiting = waiting[taken:]
            start = time.perf_counter()
            done = {report.key for report in store.reports(awaited[: 2 * DEPTH])}
            looks.append(time.perf_counter() - start)
            awaited = [key for key in awaited if key not in done]
            if not done:
                time.sleep(SOONEST)
        seconds = time.perf_counter() - begun
        store.end(0)
        store.close()
        return {
            "sub_tasks_per_second": count / seconds,
            "put_ms": statistics.median(puts) * 1e3,
            "look_ms": statistics.median(looks) * 1e3,
        }


def work(url: str, number: int, runs: Any, up: Any) -> None:
    """Lease and finish until a run is over, looking as often as a server does; then the next run."""
    up.put(number)
    while True:
        store, pause = Store(url, runs.get()), SOONEST
        while store.ended() is None:
            leases = store.lease("sub", BATCH, 60.0, f"worker {number}", 0)
            for lease in leases:
                store.finish(lease, REPLY, 0)
            pause = SOONEST if leases else min(2 * pause, LATEST)
            if not leases:
                time.sleep(pause)
        store.close()


def through_the_store(bench: Bench, urls: dict[str, str]) -> None:
    """Sub-tasks a second, of each kind of store and number of workers."""
    for count in WORKERS:
        exchanges = {
            name: worker
            for name, url in urls.items()
            if (worker := bench.start(name, "benchmarks.team_store:Exchange", url=url, workers=count))
        }
        found = bench.compare(
            f"{count} worker{'s' * (count > 1)}",
            {name: lambda worker=worker: worker.turn("exchange", SUB_TASKS) for name, worker in exchanges.items()},
            lambda turn: turn.value["sub_tasks_per_second"],
            "sub-tasks/s",
        )
        bench.facts[f"latency, {count} workers"] = {
            name: {key: round(statistics.median(turn.value[key] for turn in turns), 3) for key in ("put_ms", "look_ms")}
            for name, turns in found.items()
        }
        for worker in exchanges.values():
            worker.close()


def idle_shares(bench: Bench, urls: dict[str, str], steps: int, begin: str) -> None:
    """The share of a step in which each server has nothing to do, as its own metrics tell; the first step compiles.

    `begin`: a work directory whose cold start is used; "": the servers make one.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, url in urls.items():
            flags = [f"--config.train.steps={steps}", f"--config.cold_start.weights_from={begin}"]
            lines = train(Path(folder) / name, url, flags, bench.environment)
            begin = begin or f"{folder}/{name}/main"
            for case, key, unit in (
                ("share of a step that is idle", "time/idle_share", "share"),
                ("a step", "time/step", "s"),
            ):
                bench.results[f"{case}, {name}"] = {
                    policy: {"unit": unit, **summary([line[key] for line in found])} for policy, found in lines.items()
                }
            asked = {"unit": "a rollout", **summary([line["team/errands"] for line in lines["main"]])}
            bench.results[f"sub-tasks, {name}"] = {"main": asked}


def train(folder: Path, url: str, flags: list[str], environment: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What both servers of a tiny team wrote down of their steps, but for the first."""
    run, servers, cores = f"benchmark-{time.time_ns()}", [], sorted(os.sched_getaffinity(0))
    for number, policy in enumerate(POLICIES):
        command = [sys.executable, "-m", "metaagentx.teams.server", f"--config={CONFIG}", *flags]
        command += [f"--policy={policy}", f"--workdir={folder}/{policy}", f"--store={url}", f"--run={run}"]
        servers.append(subprocess.Popen(command, env=os.environ | environment))
        os.sched_setaffinity(servers[-1].pid, {cores[number % len(cores)]})
    codes = [server.wait() for server in servers]
    if any(codes):
        raise SystemExit(f"servers failed: {codes}")
    lines = {policy: JsonLines(folder / policy / "metrics.jsonl").read() for policy in POLICIES}
    return {policy: [line for line in found if "time/idle_share" in line][1:] for policy, found in lines.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(clock="wall")  # a store's work is done by disks and by other processes
    parser.add_argument("--steps", type=int, default=8, help="of the tiny team")
    parser.add_argument("--weights-from", default="", help="a work directory whose cold start the servers begin with")
    bench = Bench("team_store", parser.parse_args())
    with contextlib.ExitStack() as stack:
        urls = {"sqlite": f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/team.db"}
        if BINARIES:
            urls["postgresql"] = stack.enter_context(running(fsync=True))
        else:
            bench.skipped["postgresql"] = "not installed (Debian: apt install postgresql)"
        through_the_store(bench, urls)
        bench.finish()  # what is found so far; the servers take longer
        idle_shares(bench, urls, bench.given.steps, bench.given.weights_from)
        bench.finish()


if __name__ == "__main__":
    main()
