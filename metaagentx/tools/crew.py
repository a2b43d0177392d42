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
class Job(Generic[T]):
    """A piece of work, which must not raise, and what stands for its result where there is none."""

    kind: str
    work: Callable[[], T]
    seconds: float | None  # that it may take, from when it begins; None: as long as it does
    late: T  # where it takes longer
    refused: T  # where it is not begun
    future: Future[T] = field(default_factory=Future)
    alarm: threading.Timer | None = None


class Crew(Generic[T]):
    """At most `workers` jobs at a time, in order of submission, each in a thread of its own.

    A thread cannot be killed. A job that takes too long is abandoned: its place goes to the next, and what it returns
    in the end is dropped. It still uses the machine, so while `abandoned` jobs of a kind have not ended, no other of
    that kind is begun. The threads are daemons: none of them keeps a program from ending.
    """

    def __init__(self, workers: int, abandoned: int) -> None:
        self._workers, self._most_abandoned = workers, abandoned
        self._lock = threading.Lock()
        self._waiting: deque[Job[T]] = deque()
        self._running: set[Job[T]] = set()
        self._abandoned: Counter[str] = Counter()

    def submit(self, job: Job[T]) -> Future[T]:
        """What comes of the job. The future never raises, and cannot be cancelled."""
        job.future.set_running_or_notify_cancel()
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
                refused = self._abandoned[job.kind] >= self._most_abandoned
                if not refused:
                    self._running.add(job)
            if refused:
                job.future.set_result(job.refused)
            else:
                self._start(job)

    def _start(self, job: Job[T]) -> None:
        try:
            if job.seconds is not None:
                job.alarm = threading.Timer(job.seconds, self._abandon, (job,))
                job.alarm.daemon = True
                job.alarm.start()
            threading.Thread(target=self._work, args=(job,), name=f"tool-{job.kind}", daemon=True).start()
        except RuntimeError:  # no more threads are to be had: the caller's own does
            self._work(job)

    def _work(self, job: Job[T]) -> None:
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

    def _abandon(self, job: Job[T]) -> None:
        with self._lock:
            if job not in self._running:
                return
            self._running.discard(job)
            self._abandoned[job.kind] += 1
        self._begin()
        job.future.set_result(job.late)
