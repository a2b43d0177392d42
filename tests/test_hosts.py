"""Several processes train as one does: the same bits, checkpoints for any number, one voice, one end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from metaagentx.checkpoint import Checkpoints
from metaagentx.learn.state import TrainState
from metaagentx.settings import plain, read
from metaagentx.workbench import open_workbench
from tests.test_train import small

ROOT = Path(__file__).parent.parent
STEPS = 3
SETTINGS = {
    "mesh__fsdp": 2,  # of four devices: two for data
    "task__train": 16,
    "engine__slots": 8,
    "engine__admit_buckets": (8,),
    "tree__fixed_design": "",
    "pack__row_buckets": (16,),
    "pack__micro_rows": 8,
    "stages__mode": "joint",
    "roles__executor__optimizer__name": "adamw",
    "cold_start__steps": 1,
    "cold_start__batch": 8,
    "cold_start__demonstrations": 16,
    "cold_start__optimizer__name": "adamw",
    "train__steps": STEPS,
    "train__questions": 2,
    "train__keep": STEPS + 1,
    "train__evaluate_every": STEPS,
    "train__episodes_every": 1,
    "evaluate__validation_questions": 2,
    "evaluate__final": False,
}


class Group:
    """Processes that train together, with four devices in all."""

    def __init__(self, folder: Path, runs: str, processes: int, **settings) -> None:
        config = folder / f"config_{processes}.py"
        values = json.dumps(plain(small(**SETTINGS | settings)))
        config.write_text(f"import json, ml_collections\ndef get_config():\n return ml_collections.ConfigDict(json.loads({values!r}))\n")
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.writes = [folder / f"writes_{processes}_{process}.txt" for process in range(processes)]
        self.logs = [folder / f"log_{processes}_{process}.txt" for process in range(processes)]
        self.processes = []
        for process in range(processes):
            flags = [f"--config={config}", f"--workdir={folder}"]
            if processes > 1:
                flags += ["--distributed", f"--coordinator=localhost:{port}"]
                flags += [f"--processes={processes}", f"--process={process}", "--patience=60"]
            devices = f"--xla_force_host_platform_device_count={4 // processes} --xla_backend_optimization_level=0"
            environment = os.environ | {
                "RUNS": runs,
                "WRITES": str(self.writes[process]),
                "PYTHONPATH": str(ROOT),
                "XLA_FLAGS": devices,
                "OMP_NUM_THREADS": "1",
            }
            with self.logs[process].open("w") as log:
                command = [sys.executable, "-m", "tests.hosts_program", *flags]
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )

    def finish(self) -> list[int]:
        """Their exit codes."""
        try:
            return [process.wait(timeout=240) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


def lines(workdir: Path, name: str = "metrics.jsonl") -> list[dict]:
    path = workdir / name
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def numbers(workdir: Path) -> list[dict]:
    """The record of a run without its clocks."""
    clocks = ("time", "second", "compilations")
    return [{k: v for k, v in line.items() if not any(c in k for c in clocks)} for line in lines(workdir)]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two processes; the second gets SIGTERM in the first step of training."""
    folder = tmp_path_factory.mktemp("hosts")
    group = Group(folder, "two", 2)
    while not any(line["phase"] == "start" for line in lines(folder / "two")) and group.processes[0].poll() is None:
        time.sleep(0.05)
    group.processes[1].send_signal(signal.SIGTERM)
    codes = group.finish()
    return folder, group, codes


def test_one(stopped):
    folder, group, codes = stopped
    for log in group.logs:
        print(log.read_text())
    print(group.writes[1].read_text())
    assert codes == [75, 75]
    single = Group(folder, "one two", 1)
    codes = single.finish()
    print(single.logs[0].read_text())
    assert codes == [0]
    assert numbers(folder / "one") == numbers(folder / "two")
