"""A program that loads a checkpoint on a mesh: `memory` prints how many bytes that took, `save` writes it again."""

from __future__ import annotations

import dataclasses
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaagentx.mesh import make_mesh
from metaagentx.policy.load import load
from metaagentx.policy.save import save
from tests.policy import tiny

LARGE = dataclasses.replace(
    tiny.LLAMA, vocab_size=8192, d_model=1024, layers=16, heads=8, kv_heads=8, head_dim=128, d_ff=4096, dtype="bfloat16"
)
SMALL = dataclasses.replace(tiny.LLAMA, d_ff=64)


def growth(work: Callable[[], Any]) -> int:
    """By how many bytes at most the memory of this process, files mapped not counted, grows during `work`."""

    def resident() -> int:
        return 1024 * int(re.findall(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())[0])

    seen, done = [resident()], threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = jax.block_until_ready(work())
    done.set()
    watcher.join()
    del result
    return max(seen) - seen[0]


def main(task: str, path: str, *rest: str) -> None:
    if task == "memory":
        mesh = make_mesh(1, 4, 2)
        jax.block_until_ready(jax.device_put(np.zeros(8)))
        print(growth(lambda: load(path, LARGE, mesh)))
        return
    directory, address, process, processes = rest
    if address:
        jax.distributed.initialize(address, int(processes), int(process))
    save(directory, load(path, SMALL, make_mesh(2, 2, 2)), SMALL, shard_bytes=30_000)


if __name__ == "__main__":
    main(*sys.argv[1:])
