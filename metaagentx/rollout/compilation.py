"""Compiling all programs at start, several at once, and counting compilations: a steady-state step makes none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax

Call = tuple[Any, tuple[Any, ...]]  # a jitted function, and what it is called with
AT_ONCE = 8  # compilers side by side at most: each may need gigabytes


def compile_all(calls: Iterable[Call]) -> list[jax.stages.Compiled]:
    """Compile the programs of `calls`, and run none: the calls themselves, made later, find them.

    While XLA compiles one, or reads it from the cache on disk, the next is traced. Of several processes each compiles
    one at a time, as all must come to the same program together.
    """
    workers = min(os.cpu_count() or 1, AT_ONCE) if jax.process_count() == 1 else 1
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(jax.stages.Lowered.compile, (program.lower(*arguments) for program, arguments in calls)))


@dataclass(slots=True)
class Compilations:
    """Programs that XLA was asked for (found in the persistent cache or not)."""

    count: int = 0


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts the compilations of this process while the context is open."""
    compilations = Compilations()

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            compilations.count += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
