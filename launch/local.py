"""Runs jobs on this machine, some at a time, and resumes what is missing.

    python -m launch.local --directory=runs/a -- python -m metaagentx.train --config=configs/tiny.py --workdir=runs/a

A job that ends well leaves a file DONE in its directory and is skipped next time; its output is in log.txt beside it.
SIGTERM and SIGINT are passed on to the running jobs (the training program saves and exits) and start no new ones.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import IO, Literal

SAVED = 75  # exit code of a program that was told to stop and has saved: not done, not failed
CHILD = Path(__file__).with_name("child.py")
Outcome = Literal["done", "failed", "stopped", "skipped"]  # skipped: a job that it depends on did not end well


@dataclass(frozen=True, slots=True)
class Job:
    """One command. `identity` is what DONE must hold for the job to count as done; "" is the hash of the command."""

    name: str
    command: tuple[str, ...]
    directory: Path
    depends_on: tuple[str, ...] = ()
    identity: str = ""

    @property
    def seal(self) -> str:
        return self.identity or hashlib.sha256("\0".join(self.command).encode()).hexdigest()

    @property
    def done(self) -> bool:
        """Whether the job has ended well before; ValueError if another job has, in the same directory."""
        path = self.directory / "DONE"
        if not path.exists():
            return False
        if path.read_text().strip() != self.seal:
            raise ValueError(f"{self.directory} holds the results of another command than job {self.name!r} has now; "
                             "choose another directory, or delete this one")  # fmt: skip
        return True


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    log: IO[bytes]
    start: float
    told: bool = False  # whether SIGTERM was sent


def cores_of_slots(parallel: int, cores_per_job: int, available: Iterable[int]) -> list[str]:
    """Disjoint cores for each of `parallel` slots, as comma-separated numbers; "" leaves a job free to use all.

    `cores_per_job` 0 divides the cores evenly, and leaves jobs free if there are fewer cores than jobs.
    """
    cores = sorted(available)
    each = cores_per_job or (len(cores) // parallel if parallel > 1 else 0)
    if each * parallel > len(cores):
        raise ValueError(f"cores_per_job={each} and parallel={parallel} need {each * parallel} cores, not {len(cores)}")
    return [",".join(map(str, cores[slot * each : (slot + 1) * each])) for slot in range(parallel)]


def _start(job: Job, slot: int, cores: str) -> _Running:
    job.directory.mkdir(parents=True, exist_ok=True)
    log = open(job.directory / "log.txt", "ab")  # noqa: SIM115 (closed when the job ends)
    command = [sys.executable, str(CHILD), cores, *job.command]
    # A session of its own: Ctrl-C reaches the launcher alone, which passes it on once.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    return _Running(job, process, slot, log, time.monotonic())


def _stop(running: list[_Running]) -> None:
    for each in running:
        if not each.told:
            each.process.send_signal(signal.SIGTERM)
            each.told = True


def _finish(running: _Running, stopping: bool, say: Callable[[str], object]) -> Outcome:
    running.log.close()
    job, code, seconds = running.job, running.process.returncode, time.monotonic() - running.start
    if stopping or code == SAVED:  # a program that saves on SIGTERM may exit with 0: only an undisturbed end counts
        say(f"stopped  {job.name}")
        return "stopped"
    if code == 0:
        mark = job.directory / "DONE.tmp"
        mark.write_text(job.seal + "\n")
        mark.replace(job.directory / "DONE")
        say(f"done     {job.name} ({seconds:.0f} s)")
        return "done"
    log = job.directory / "log.txt"
    tail = log.read_bytes()[-4000:].decode(errors="replace").splitlines()[-8:]
    say("\n    ".join([f"failed   {job.name} (exit {code}, {log})", *tail]))
    return "failed"


def _graph(jobs: Sequence[Job]) -> TopologicalSorter[str]:
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two jobs have the same name: {', '.join(twice)}")
    for job in jobs:
        if missing := set(job.depends_on) - set(names):
            raise ValueError(f"job {job.name!r} depends on {', '.join(sorted(missing))}, which is no job of this run")
    graph = TopologicalSorter({job.name: job.depends_on for job in jobs})
    try:
        graph.prepare()
    except CycleError as error:
        raise ValueError(f"jobs depend on each other in a circle: {' -> '.join(error.args[1])}") from None
    return graph


def announce(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


def run(
    jobs: Sequence[Job], parallel: int = 1, cores_per_job: int = 0, say: Callable[[str], object] = announce
) -> dict[str, Outcome]:
    """Runs what is not done yet, at most `parallel` jobs at a time, each after the jobs that it depends on.

    Must be called from the main thread (it handles signals). Raises ValueError for names that clash, unknown or
    circular dependencies, too few cores, or a directory that another job has finished in.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be at least 1, not {parallel}")
    graph, by_name = _graph(jobs), {job.name: job for job in jobs}
    place = {job.name: number for number, job in enumerate(jobs)}
    outcomes: dict[str, Outcome] = {job.name: "done" for job in jobs if job.done}
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = cores_of_slots(parallel, cores_per_job if available else 0, available)
    if outcomes:
        say(f"{len(outcomes)} of {len(jobs)} jobs were done before")

    waiting: list[str] = []
    running: list[_Running] = []
    free = list(range(parallel))
    with _signals() as told:
        while graph.is_active():
            waiting = sorted([*waiting, *graph.get_ready()], key=place.__getitem__)  # first come, first served
            for name in tuple(waiting):
                job = by_name[name]
                if name not in outcomes and told:
                    outcomes[name] = "stopped"
                elif name not in outcomes and any(outcomes[other] != "done" for other in job.depends_on):
                    outcomes[name] = "skipped"
                    say(f"skipped  {name}: a job that it depends on did not end well")
                if name in outcomes:
                    graph.done(name)
                elif free:
                    say(f"started  {name}")
                    slot = free.pop(0)
                    running.append(_start(job, slot, cores[slot]))
                else:
                    continue
                waiting.remove(name)
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                free.append(each.slot)
                outcomes[each.job.name] = _finish(each, bool(told), say)
                graph.done(each.job.name)
            if told:
                _stop(running)
            if running:
                time.sleep(0.05)
    return {job.name: outcomes[job.name] for job in jobs}


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT are added to as they come."""
    seen: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, lambda number, frame: seen.append(number)) for number in numbers]
    try:
        yield seen
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def exit_code(outcomes: dict[str, Outcome]) -> int:
    """0: all done; 1: something failed; else 75: stopped, the same command goes on."""
    values = set(outcomes.values())
    return 1 if "failed" in values else SAVED if values - {"done"} else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True, help="where log.txt and DONE are written")
    parser.add_argument("command", nargs="+", help="the command, after --")
    args = parser.parse_args(argv)
    try:
        return exit_code(run([Job(args.directory.name, tuple(args.command), args.directory)]))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
