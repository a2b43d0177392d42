"""A sub-agents' server's side of the store, as tools: workers take sub-tasks and hand in what became of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from metaagentx.rollout.at_work import Tools
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.tasks.task import GradingFailed
from metaagentx.teams.errands import reply
from metaagentx.teams.journal import Entry, Journal
from metaagentx.teams.options import MAIN, ExchangeOptions
from metaagentx.teams.outbox import LATEST, SOONEST, Stopped
from metaagentx.teams.pulse import Watch
from metaagentx.teams.records import Lease
from metaagentx.teams.store import Store
from metaagentx.teams.team import Errand
from metaagentx.workflow.protocol import Outcome, ToolCall, ToolResult

TAKE, HAND_IN = "<take>", "<hand in>"  # the tools: no name that a model could write
GRADERS = 4  # reports whose marks are waited for side by side
ENDED = ToolResult("")


class Inbox:
    """Leases sub-tasks for the workers that ask, keeps the leases alive, journals and hands in what they bring.

    `TAKE` resolves with the number of one of `leases`, or with `ENDED` when the work of `step` is over: the step is
    whole, and nobody works. `HAND_IN` is given the arguments of `hand_in`. All other calls go to `tools`. Futures raise
    where the server must end, as an outbox's do.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        watch: Watch,
        tools: Tools,
        policy: str,
        holder: str,
        step: int,
        options: ExchangeOptions,
        stop: threading.Event,
    ) -> None:
        self._store, self._journal, self._watch, self._tools, self._stop = store, journal, watch, tools, stop
        self._policy, self._holder, self._step, self._options = policy, holder, step, options
        self.leases: dict[int, Lease] = {}  # what workers have, by number
        self._lock, self._asking = threading.Condition(), deque[Future[ToolResult]]()
        self._taken, self._renewed = 0, time.monotonic()
        self._error: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._work, name="inbox", daemon=True)
        self._graders = ThreadPoolExecutor(GRADERS, "hand-in")

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._thread.join()
        self._graders.shutdown()

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        """Run one of the tools."""
        if call.name not in (TAKE, HAND_IN):
            return self._tools.submit(call)
        if call.name == HAND_IN:
            return self._graders.submit(self.hand_in, **call.arguments)
        future: Future[ToolResult] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._over:
                future.set_result(ENDED)
            else:
                self._asking.append(future)
                self._lock.notify()
        return future

    def hand_in(self, number: int, errand: Errand, trajectory: Trajectory | None, version: int) -> ToolResult:
        """Journal what a worker did, and report it; what was lost to our own faults is given back instead."""
        lease = self.leases[number]
        try:
            mark = None if errand.mark is None else errand.mark()
            lost = errand.said.outcome is Outcome.FAILED
        except GradingFailed:
            mark, lost = None, True
        if lost:
            self._store.release(lease)
        else:
            self._finish(lease, self._journal.put(Entry(lease.task, reply(errand, mark), version, trajectory)))
        with self._lock:
            del self.leases[number]
        return ENDED

    def refuse(self, number: int) -> None:
        """Report that a sub-task is none."""
        self._store.release(self.leases[number])

    def _finish(self, lease: Lease, entry: Entry) -> None:
        """Report. Where the lease was lost meanwhile, whoever leases the sub-task next finds it in the journal."""
        self._store.finish(lease, entry.reply, entry.version)

    def _work(self) -> None:
        pause = SOONEST
        try:
            while not self._over:
                if self._stop.is_set():
                    raise Stopped
                if time.monotonic() - self._renewed > self._options.lease_seconds / 3:
                    self._renew()
                moved = self._give()
                if moved:
                    self._watch.came(MAIN)
                if not moved and not self.leases and self._asking:
                    if self._is_over():
                        self._watch.came(MAIN)
                        return self._close()
                    self._watch.look({MAIN})
                pause = SOONEST if moved else min(2 * pause, LATEST)
                with self._lock:
                    self._lock.wait(pause)
        except BaseException as error:  # the thread that waits has to know
            with self._lock:
                self._error = error
                while self._asking:
                    self._asking.popleft().set_exception(error)

    def _give(self) -> int:
        """Lease what there is for those who ask; how many sub-tasks moved."""
        with self._lock:
            asking = len(self._asking)
        if not asking:
            return 0
        most, last = asking, self._step + self._options.staleness
        leased = self._store.lease(self._policy, most, self._options.lease_seconds, self._holder, last)
        done = self._journal.get([lease.task.key for lease in leased])
        for lease in leased:
            known = done.get(lease.task.key)
            if known is not None:  # done by this server, which was killed before it could say so
                if known.task != lease.task:
                    raise ValueError(f"the journal has another sub-task {lease.task.key}: it is of another run")
                self._finish(lease, known)
                continue
            with self._lock:
                self.leases[self._taken] = lease
                future, number = self._asking.popleft(), self._taken
                self._taken += 1
            future.set_result(ToolResult(str(number)))
        return len(leased)

    def _renew(self) -> None:
        """Keep all leases. One that was lost is worked on to its end all the same, and then changes nothing."""
        self._renewed = time.monotonic()
        with self._lock:
            leases = list(self.leases.values())
        for lease in leases:
            self._store.renew(lease, self._options.lease_seconds)

    def _is_over(self) -> bool:
        return self._store.outcomes(self._step) is not None or self._store.ended() == self._step

    def _close(self) -> None:
        """Send everybody home."""
        with self._lock:
            self._over = True
            asking = list(self._asking)
            self._asking.clear()
            self._lock.notify()
        for future in asking:
            future.set_result(ENDED)
