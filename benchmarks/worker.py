"""A contestant in a process of its own, so that thread pools, memory and settings of libraries do not mix.

`Worker` starts `python -m benchmarks.worker` and talks to it over a pipe. The process is pinned before it imports
anything that makes threads, and does nothing between two turns.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Missing(RuntimeError):
    """A contestant that is not installed, or did not become ready; the message says why."""


class Ended(RuntimeError):
    """A contestant's process has ended."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One measured call."""

    wall: float  # seconds
    cpu: float  # processor seconds of the process and its children, all threads
    peak: int  # bytes, largest resident memory of the process during the turn
    value: Any  # what the method returned


class Worker:
    """An object of `target` ("module:class") made from `options`, in a process of its own.

    Args:
      limit: wall seconds within which the object must have been made (programs are compiled then); None: no limit.

    Raises:
      Missing: it needs a package that is not installed, was not ready in time, or its process ended before.
    """

    def __init__(
        self,
        target: str,
        cores: Sequence[int],
        environment: dict[str, str],
        limit: float | None = None,
        **options: Any,
    ) -> None:
        self.target = target
        self._pipe, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", "benchmarks.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=os.environ | environment, stdout=2
            )
        self._send((target, tuple(cores), options))
        if not self._pipe.poll(limit):
            self._process.kill()
            self.close()
            raise Missing(f"not ready after {limit:g} s")
        try:
            self.started = self._receive()
        except Ended as error:  # for lack of memory, as a rule
            raise Missing(str(error)) from None

    def turn(self, method: str, *arguments: Any, **named: Any) -> Turn:
        """Call a method there, measured."""
        self._send((method, arguments, named))
        return self._receive()

    def close(self) -> None:
        """End the process."""
        if not self._pipe.closed:
            self._pipe.close()
            self._process.wait()

    def _send(self, message: Any) -> None:
        self._pipe.send_bytes(pickle.dumps(message))

    def _receive(self) -> Turn:
        try:
            answer = pickle.loads(self._pipe.recv_bytes())
        except EOFError:
            raise Ended(f"{self.target}: its process ended with {self._process.wait()}") from None
        if isinstance(answer, Turn):
            return answer
        kind, text = answer
        raise Missing(text) if kind == "missing" else RuntimeError(f"{self.target}:\n{text}")


def measured(function: Callable[..., Any], *arguments: Any, **named: Any) -> Turn:
    """Call `function` in this process."""
    _forget_peak()
    wall, cpu = time.perf_counter(), cpu_seconds()
    value = function(*arguments, **named)
    return Turn(time.perf_counter() - wall, cpu_seconds() - cpu, _peak(), value)


def cpu_seconds() -> float:
    """Processor time of this process and of its children, those that live and those that ended."""
    total = time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, stat[11:15])) / _TICK
    return total


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not permitted in this container: the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _serve(pipe: Connection) -> None:
    target, cores, options = pickle.loads(pipe.recv_bytes())
    if cores:
        os.sched_setaffinity(0, cores)
    module, _, name = target.partition(":")
    made: list[Any] = []
    answer = _answer(lambda: made.append(getattr(importlib.import_module(module), name)(**options)))
    pipe.send_bytes(pickle.dumps(answer))
    while made:
        try:
            method, arguments, named = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(pickle.dumps(_answer(getattr(made[0], method), *arguments, **named)))


def _answer(function: Callable[..., Any], *arguments: Any, **named: Any) -> Turn | tuple[str, str]:
    try:
        return measured(function, *arguments, **named)
    except ModuleNotFoundError as error:
        return "missing", f"{error} (make peers installs it)"
    except Exception:
        return "error", traceback.format_exc()


if __name__ == "__main__":
    # As `benchmarks.worker`, so that a Turn that is made here is one to the process that reads it.
    from benchmarks import worker

    worker._serve(Connection(int(sys.argv[1])))
