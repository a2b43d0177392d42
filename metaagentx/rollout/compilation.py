"""Counting compilations: a steady-state step makes none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import jax


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
