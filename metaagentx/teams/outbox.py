"""The main agent's side of the store, as a tool: sub-tasks go out, and their reports come in beside decoding."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from concurrent.futures import Future
from types import TracebackType

from metaagentx.rollout.at_work import Tools
from metaagentx.teams.errands import PUT
from metaagentx.teams.options import ExchangeOptions
from metaagentx.teams.pulse import Watch
from metaagentx.teams.records import SubTask
from metaagentx.teams.store import Store
from metaagentx.workflow.protocol import ToolCall, ToolResult

SOONEST, LATEST = 0.002, 0.03  # seconds between two looks into the store, which grow while nothing happens


class Stopped(Exception):
    """The server was told to stop while it waited."""


class Outbox:
    """Puts the sub-tasks that it is given, `depth` of a policy at a time, and resolves each when its report is there.

    A sub-task that became a dead letter is a result that is not ok. All other calls go to `tools`. Futures raise where
    the server must end: `Stopped` when it was told to, and whatever the store raised.
    """

    def __init__(
        self, store: Store, watch: Watch, tools: Tools, options: ExchangeOptions, stop: threading.Event
    ) -> None:
        self._store, self._watch, self._tools, self._stop = store, watch, tools, stop
        self._depth = options.depth
        self._lock, self._given = threading.Condition(), deque[tuple[SubTask, Future[ToolResult]]]()
        self._error: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)

    def __enter__(self) -> Outbox:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            self._lock.notify()
        self._thread.join()

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        """Run a tool: with `PUT`, have the sub-task `call.arguments["task"]` done."""
        if call.name != PUT:
            return self._tools.submit(call)
        future: Future[ToolResult] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            self._given.append((call.arguments["task"], future))
            self._lock.notify()
        return future

    def _work(self) -> None:
        out: dict[str, deque[SubTask]] = defaultdict(deque)  # policy -> what there was no room for yet
        awaited: dict[str, tuple[str, Future[ToolResult]]] = {}  # key -> the policy, and who waits
        pause = SOONEST
        while True:
            with self._lock:
                if not self._given and not awaited:
                    self._lock.wait_for(lambda: self._given or self._over)
                if self._over:
                    return None
                given = [self._given.popleft() for _ in range(len(self._given))]
            for task, future in given:
                out[task.policy].append(task)
                awaited[task.key] = task.policy, future
            try:
                moved = self._put(out) + self._take(awaited)
                self._watch.look({policy for policy, _ in awaited.values()})
                if self._stop.is_set():
                    raise Stopped
            except BaseException as error:  # the thread that waits has to know
                return self._fail(error, [future for _, future in awaited.values()])
            pause = SOONEST if moved or given else min(2 * pause, LATEST)
            with self._lock:
                self._lock.wait_for(lambda: self._given or self._over, pause)

    def _put(self, out: dict[str, deque[SubTask]]) -> int:
        """Put what there is room for; how many."""
        count = 0
        for waiting in out.values():
            taken = self._store.put(list(waiting), self._depth)
            for _ in range(taken):
                waiting.popleft()
            count += taken
        return count

    def _take(self, awaited: dict[str, tuple[str, Future[ToolResult]]]) -> int:
        """Resolve what has ended; how many."""
        reports = self._store.reports(awaited)
        for report in reports:
            policy, future = awaited.pop(report.key)
            self._watch.came(policy)
            future.set_result(ToolResult(report.text or "", ok=report.text is not None))
        return len(reports)

    def _fail(self, error: BaseException, waiting: list[Future[ToolResult]]) -> None:
        with self._lock:
            self._error = error
            waiting += [future for _, future in self._given]
        for future in waiting:
            future.set_exception(error)
