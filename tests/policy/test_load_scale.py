"""Loading as a program of its own: how much memory it needs, and two processes of one mesh."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import pytest

from metaagentx.policy import params
from tests.policy import checkpoints, loader

pytestmark = pytest.mark.slow


def run(*arguments, devices):
    """The program `loader` in a process of its own, with that many simulated devices."""
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-m", "tests.policy.loader", *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_host_holds_its_weights_once_and_one_shard(tmp_path):
    """Its devices are simulated: their memory is the host's."""
    content = checkpoints.tensors(loader.LARGE, dtype=ml_dtypes.bfloat16)
    path = checkpoints.write(tmp_path / "large", checkpoints.halves(content))
    grown, _ = run("memory", path, devices=8).communicate(timeout=300)
    weights = 2 * params.count(loader.LARGE)
    assert weights > 500 * 2**20
    assert weights <= int(grown) < 1.15 * weights


def test_two_processes_load_their_own_slices_and_save_what_one_saves(tmp_path):
    path = checkpoints.write(tmp_path / "small", checkpoints.halves(checkpoints.tensors(loader.SMALL)))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    workers = [run("save", path, tmp_path / "two", address, i, 2, devices=4) for i in range(2)]
    alone = run("save", path, tmp_path / "one", "", 0, 1, devices=8)
    assert [worker.wait(timeout=300) for worker in (*workers, alone)] == [0, 0, 0]
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert len(one) > 3
