"""Work done side by side in threads, so many at a time, each piece for so long."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    kind: str
    work: Callable[[], T]
    seconds: float | None
    late: Callable[[], T]
    future: Future[T] = field(default_factory=Future)
    alarm: threading.Timer | None = None


class Crew(Generic[T]):
    """At most `workers` pieces of work at a time, in order of submission, each in a thread of its own.

    A thread cannot be killed. Work that takes longer than its `seconds` is abandoned: its place goes to the next, its
    future gets `late()`, and whatever it returns in the end is dropped. It still uses the machine, so `abandoned(kind)`
    counts those that have not ended. The threads are daemons: none of them keeps a program from ending.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._waiting: deque[_Job[T]] = deque()
        self._running: set[_Job[T]] = set()
        self._abandoned: Counter[str] = Counter()

    def abandoned(self, kind: str) -> int:
        with self._lock:
            return self._abandoned[kind]

    def submit(self, kind: str, work: Callable[[], T], seconds: float | None, late: Callable[[], T]) -> Future[T]:
        """What `work()` returns; it must not raise. The time counts from when it begins; None: as long as it takes."""
        job = _Job(kind, work, seconds, late)
        job.future.set_running_or_notify_cancel()  # it cannot be cancelled from here on
        with self._lock:
            self._waiting.append(job)
        self._begin()
        return job.future

    def _begin(self) -> None:
        """Begin what waits, as far as there is room."""
        while True:
            with self._lock:
                if not self._waiting or len(self._running) >= self._workers:
                    return
                job = self._waiting.popleft()
                self._running.add(job)
                if job.seconds is not None:
                    job.alarm = threading.Timer(job.seconds, self._abandon, (job,))
                    job.alarm.daemon = True
            try:
                if job.alarm is not None:
                    job.alarm.start()
                threading.Thread(target=self._work, args=(job,), name=f"tool-{job.kind}", daemon=True).start()
            except RuntimeError:  # no more threads are to be had: the caller's own does
                self._work(job)

    def _work(self, job: _Job[T]) -> None:
        result = job.work()
        with self._lock:
            in_time = job in self._running
            self._running.discard(job)
            self._abandoned[job.kind] -= not in_time
        if in_time:
            if job.alarm is not None:
                job.alarm.cancel()
            self._begin()
            job.future.set_result(result)

    def _abandon(self, job: _Job[T]) -> None:
        with self._lock:
            if job not in self._running:
                return
            self._running.discard(job)
            self._abandoned[job.kind] += 1
        self._begin()
        job.future.set_result(job.late())
