"""Programs that models write, run where they can do no harm, and answered as data.

A pool of warm workers under bubblewrap (`worker`, `zygote`, `jail`), each of which forks a confined child for every
program. A program only answers calls. What was expected of it is never inside, and what comes out is data that
`spelling.same` compares here, so an object that claims to equal everything, a forged result or an early exit gains
nothing. docs/sandbox.md has the threats and the bounds.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from metaagentx.tools import jail
from metaagentx.tools.worker import Answers, Ending, FunctionCall, Patience, SandboxError, Worker, run_once

LONGEST_PROGRAM = 65536  # characters
_ISOLATED = "no process, no socket, no file, few threads"
_PROBE = f"""
import os, socket, threading

def probe():
    for attempt in (os.fork, socket.socket, lambda: open("/etc/hosts")):
        try:
            attempt()
        except OSError:
            continue
        os._exit(1)
    threading.stack_size(32768)
    end = threading.Event()
    try:
        for _ in range({2 * jail.THREADS}):
            threading.Thread(target=end.wait).start()
    except RuntimeError:
        return "{_ISOLATED}"
    finally:
        end.set()
"""


class SandboxUnavailable(RuntimeError):
    """This machine cannot isolate a program. Nothing is run without isolation instead."""


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What one program may use, over all its calls."""

    seconds: float = 10.0  # of wall time
    cpu_seconds: int = 4  # of processor time
    memory_mb: int = 512
    output_kb: int = 256  # of results
    workers: int = 0  # programs that run at once; 0: as many as there are processors
    packages: tuple[str, ...] = ()  # installed packages that programs may import, loaded beforehand
    isolation: Literal["required", "none"] = "required"  # "none": programs can read and do whatever this user can

    def __post_init__(self) -> None:
        for name in ("seconds", "cpu_seconds", "memory_mb", "output_kb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"sandbox.{name} must be above 0, not {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"sandbox.workers must be 0 (one per processor) or above, not {self.workers}")
        for package in self.packages:
            if not package.isidentifier():
                raise ValueError(f"sandbox.packages must name packages as they are imported, not {package!r}")


class Sandbox:
    """Runs programs side by side. Raises SandboxUnavailable at once where that is not possible."""

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self._usage = jail.Usage(options.memory_mb << 20, options.cpu_seconds, options.packages)
        self._patience = Patience(options.seconds, options.output_kb << 10)
        self._threads = ThreadPoolExecutor(options.workers or os.cpu_count() or 1, thread_name_prefix="sandbox")
        self._idle: deque[Worker] = deque()
        self._finalizer = weakref.finalize(self, _release, self._threads, self._idle)
        if options.isolation == "none":
            warnings.warn(
                "sandbox.isolation is 'none': programs that models write can read and do whatever this user can",
                RuntimeWarning,
                stacklevel=2,
            )
            self._bubblewrap = ""
        else:
            self._bubblewrap = self._threads.submit(self._working_bubblewrap).result()

    def submit(self, program: str, calls: Sequence[FunctionCall]) -> Future[Answers]:
        """Begin to run `program` and its `calls` in one process."""
        return self._threads.submit(self._run, program, calls)

    def run(self, program: str, calls: Sequence[FunctionCall]) -> Answers:
        """Run `program` and its `calls`. Raises SandboxError if the process did not even begin, twice."""
        return self.submit(program, calls).result()

    def workers(self) -> tuple[Worker, ...]:
        """Those that are warm and wait, the one that is used next at the end."""
        return tuple(self._idle)

    def close(self) -> None:
        """Let what runs end, and end the workers. A sandbox that is not used any more closes itself."""
        self._threads.shutdown(cancel_futures=True)
        self._finalizer()

    def _run(self, program: str, calls: Sequence[FunctionCall]) -> Answers:
        if len(program) > LONGEST_PROGRAM:
            return Answers((), Ending.DIED)
        if not self._bubblewrap:
            return run_once(jail.unjailed(self._usage), program, calls, self._patience)
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = self._worker(self._bubblewrap)
        try:
            return self._run_on(worker, program, calls)
        except SandboxError:  # a worker that somebody killed; one that has just started shows whether all break
            return self._run_on(self._worker(self._bubblewrap), program, calls)

    def _run_on(self, worker: Worker, program: str, calls: Sequence[FunctionCall]) -> Answers:
        try:
            return worker.run(program, calls, self._patience)
        finally:
            if worker.alive:
                self._idle.append(worker)

    def _worker(self, bubblewrap: str) -> Worker:
        return Worker(jail.jailed(bubblewrap, self._usage))

    def _working_bubblewrap(self) -> str:
        """The first bubblewrap that really isolates a program here."""
        complaints = []
        for path in jail.bubblewraps():
            try:
                worker = self._worker(path)
                answers = worker.run(_PROBE, [("probe", [])], self._patience)
            except (SandboxError, OSError) as error:
                complaints.append(f"{path}: {error}")
                continue
            if answers.value(0) == (_ISOLATED,):
                self._idle.append(worker)
                return path
            complaints.append(f"{path}: a test program was not isolated ({answers.results or answers.ending})")
            worker.kill()
        raise SandboxUnavailable(
            f"programs cannot be isolated on this machine ({'; '.join(complaints) or 'no bubblewrap was found'}). "
            "Three ways out: install bubblewrap (apt install bubblewrap, or pip install 'metaagentx[sandbox]'); allow "
            "namespaces (sysctl kernel.unprivileged_userns_clone=1, or a privileged container); or accept the risk "
            "that programs read and do whatever this user can, by task.sandbox.isolation='none'"
        )


def _release(threads: ThreadPoolExecutor, idle: deque[Worker]) -> None:
    threads.shutdown(wait=False)
    while idle:
        idle.pop().kill()
