"""A machine that is taken away says SIGTERM first: finish the step, save, and leave."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: saved, run the same command again


@contextlib.contextmanager
def notice() -> Iterator[threading.Event]:
    """An event that is set by SIGTERM. Only the main thread may listen; elsewhere (notebooks) it is never set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def set_event(_number: int, _frame: FrameType | None) -> None:
        event.set()

    before = signal.signal(signal.SIGTERM, set_event)
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
