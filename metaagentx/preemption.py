"""A machine that is taken away says SIGTERM first, a person Ctrl-C: finish the step, save, and leave."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: saved, run the same command again


@contextlib.contextmanager
def notice() -> Iterator[threading.Event]:
    """An event that is set by SIGTERM and by a first Ctrl-C; a second one stops at once.

    Only the main thread may listen; elsewhere the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def set_event(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and event.is_set():
            raise KeyboardInterrupt
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        os.write(2, f"\nstopping after this step{again}\n".encode())  # a handler must not wait for a buffer
        event.set()

    before = {number: signal.signal(number, set_event) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
