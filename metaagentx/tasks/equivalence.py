"""Whether two mathematical answers are equal though spelled differently, decided in a process of its own.

math-verify parses hostile text with a computer algebra system: it may take any time and memory, and its own timeouts
work in a main thread only. So it runs in a worker that is killed from outside.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import selectors
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from metaagentx.tasks import mathematician

LONGEST = 200  # characters of an answer that is looked at
_TOWER = re.compile(r"\^[^+\-*/=,]*\^|\d{4,}\s*!|!\s*!|\^\s*\{?\s*\d{4,}")  # towers of powers, large factorials


class Equivalence:
    """A worker that is started on first use, killed when it takes too long, and then started again."""

    def __init__(self, seconds: float = 3.0, start_seconds: float = 120.0) -> None:
        """
        Args:
          seconds: wall time of one comparison; what takes longer is not equal.
          start_seconds: wall time that the worker may take to start (it imports a computer algebra system).

        Raises:
          ValueError: math-verify is not installed.
        """
        if importlib.util.find_spec("math_verify") is None:
            raise ValueError("math-verify is not installed: pip install 'metaagentx[math]', or choose grading='match'")
        self._seconds, self._start_seconds = seconds, start_seconds
        self._worker: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="equivalence")
        self._cached = functools.lru_cache(maxsize=100_000)(self._ask)

    def submit(self, wanted: str, given: str) -> Future[bool]:
        """Begin to decide `holds(wanted, given)`."""
        return self._thread.submit(self.holds, wanted, given)

    def holds(self, wanted: str, given: str) -> bool:
        """Whether `given` equals `wanted`. Not symmetric: `wanted` is trusted."""
        if len(given) > LONGEST or _TOWER.search(given):
            return False
        with self._lock:
            return self._cached(wanted, given)

    def _ask(self, wanted: str, given: str) -> bool:
        for _ in range(2):  # a worker that died of itself is replaced once
            worker = self._worker or self._start()
            assert worker.stdin is not None
            try:
                worker.stdin.write(json.dumps([wanted, given]) + "\n")
                worker.stdin.flush()
            except OSError:
                self._stop()
                continue
            line = _line_within(worker, self._seconds)
            if line is not None:
                return line == "true"
            self._stop()
            return False
        return False

    def _start(self) -> subprocess.Popen[str]:
        script = str(Path(mathematician.__file__).resolve())
        worker = subprocess.Popen(
            [sys.executable, "-P", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        weakref.finalize(self, worker.kill)
        if _line_within(worker, self._start_seconds) != '"ready"':
            worker.kill()
            raise RuntimeError(f"the worker of math-verify did not start; run {sys.executable} -P {script} to see why")
        self._worker = worker
        return worker

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None


def _line_within(worker: subprocess.Popen[str], seconds: float) -> str | None:
    """The worker's next line, or None if it does not come in time or at all."""
    assert worker.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        if not selector.select(seconds):
            return None
    return worker.stdout.readline().strip() or None
