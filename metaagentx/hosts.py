"""Several processes as one program: how they meet, and the few things on which they must agree.

Every process runs the same host loop on the same replicated numbers, and the devices of all make one mesh. Process 0
alone writes files (a checkpoint excepted: there everyone writes the shards it holds) and reports progress.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


class HostsError(RuntimeError):
    """Processes that do not come together or do not agree; the message says which and on what."""


def join(coordinator: str | None, processes: int | None, process: int | None, patience: float) -> None:
    """Become one of several processes; `jax.devices()` are then those of all. Nothing of JAX may have run before.

    Args:
      coordinator: "HOST:PORT" of process 0. None, as the other two: TPU VMs, GKE and Slurm say it themselves.
      processes: how many there are.
      process: which one this is, from 0.
      patience: seconds to wait for the others. Then the process ends with exit code 2 and a line on stderr.

    Raises:
      HostsError: the three do not fit together, or are needed on this machine.
    """
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise HostsError(f"--coordinator must be HOST:PORT of process 0, not {coordinator!r}")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise HostsError(f"--process must be from 0 to {processes - 1} (of --processes={processes}), not {process}")

    def give_up() -> None:
        who = "the processes" if processes is None else f"{processes} processes"
        where = "" if coordinator is None else f" at {coordinator}"
        print(f"error: {who} did not meet{where} within {patience:g} s: start all, with one --coordinator and as many "
              "as --processes says", file=sys.stderr, flush=True)  # fmt: skip
        os._exit(2)  # JAX's client would wait on, and then abort with a stack trace

    # JAX would catch SIGTERM to tell the other processes; `anywhere` does that, and a story decides what SIGTERM means.
    jax.config.update("jax_enable_preemption_service", False)
    clock = threading.Timer(patience, give_up)
    clock.daemon = True
    clock.start()
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(patience) + 60)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HostsError(
            f"--distributed: {reason} On machines that do not know their cluster, "
            "give --coordinator=HOST:PORT --processes=N --process=I"
        ) from error
    finally:
        clock.cancel()


def anywhere(flag: bool) -> bool:
    """Whether `flag` is true on any process. Every process must ask, at the same place of its program."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def insist(what: str, value: Any, advice: str) -> None:
    """Stop unless every process has the same JSON `value`.

    Raises:
      HostsError: on every process, naming those whose value is not process 0's.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    found = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [str(process) for process in range(len(found)) if not np.array_equal(found[process], found[0])]
    if others:
        here, names = jax.process_index(), ", ".join(others)
        raise HostsError(f"process {here}: the {what} of process {names} is not that of process 0; {advice}")


def from_primary(text: str) -> str:
    """Process 0's text, on every process."""
    if jax.process_count() == 1:
        return text
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(data), np.int32)))
    if not size:
        return ""
    data = data if jax.process_index() == 0 else np.zeros(size, np.uint8)
    return multihost_utils.broadcast_one_to_all(data).tobytes().decode()


def everyones(find: Callable[[], bytes]) -> list[bytes]:
    """What `find` returns on every process, in their order, on all. Every process must ask, at the same place.

    Raises:
      HostsError: on every process, if `find` raises on one: which, and what. Nobody waits for who will not come.
    """
    if jax.process_count() == 1:
        return [find()]
    found, failure = b"", None
    try:
        found = find()
    except Exception as error:  # whatever it is, the others must hear of it
        found, failure = f"{type(error).__name__}: {error}".encode(errors="replace"), error
    sizes = multihost_utils.process_allgather(np.array([len(found), failure is not None], np.int32))
    padded = np.zeros(sizes[:, 0].max(), np.uint8)
    padded[: len(found)] = np.frombuffer(found, np.uint8)
    gathered = multihost_utils.process_allgather(padded)
    said = [row[:size].tobytes() for row, (size, _) in zip(gathered, sizes, strict=True)]
    complaints = [f"process {place}: {said[place].decode()}" for place in np.flatnonzero(sizes[:, 1])]
    if complaints:
        raise HostsError("; ".join(complaints)) from failure
    return said
