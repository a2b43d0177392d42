"""Several processes train as one does: the same bits, checkpoints for any number, one voice, one end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metaagentx.hosts import HostsError, join
from metaagentx.sections import plain
from tests.flags import flags
from tests.test_disaggregated import weights
from tests.test_train import small

ROOT = Path(__file__).parent.parent
STEPS = 3
PATIENCE = 900  # seconds: a busy machine is no fault
SETTINGS = {
    "mesh__fsdp": 2,  # of four devices: two for data
    "task__tiny__train": 16,
    "engine__slots": 8,
    "engine__admit_buckets": (8,),
    "tree__fixed_design": "",
    "pack__row_buckets": (16,),
    "pack__micro_rows": 8,
    "stages__mode": "executor_only",
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


class Group:
    """Processes that train together, with four devices in all."""

    def __init__(self, folder: Path, runs: str, processes: int, **settings) -> None:
        config = folder / f"config_{processes}.py"
        values = json.dumps(plain(small(**SETTINGS | settings)))
        config.write_text(
            f"import json, ml_collections\nget_config = lambda: ml_collections.ConfigDict(json.loads({values!r}))\n"
        )
        port = free_port()
        self.writes = [folder / f"writes_{processes}_{process}.txt" for process in range(processes)]
        self.logs = [folder / f"log_{processes}_{process}.txt" for process in range(processes)]
        self.processes = []
        for process in range(processes):
            words = [f"--config={config}", f"--workdir={folder}"]
            if processes > 1:
                words += ["--distributed", f"--coordinator=localhost:{port}"]
                words += [f"--processes={processes}", f"--process={process}", f"--patience={PATIENCE}"]
            environment = os.environ | {
                "RUNS": runs,
                "WRITES": str(self.writes[process]),
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",  # the config file is beside the run
                "XLA_FLAGS": flags(devices=4 // processes),
                "OMP_NUM_THREADS": "1",
            }
            with self.logs[process].open("w") as log:
                command = [sys.executable, "-m", "tests.hosts_program", *words]
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )

    def said(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    def finish(self) -> list[int]:
        """Their exit codes."""
        try:
            return [process.wait(timeout=PATIENCE) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


def lines(workdir: Path, name: str = "metrics.jsonl") -> list[dict]:
    path = workdir / name
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def numbers(workdir: Path, last: int = STEPS) -> list[dict]:
    """The record of a run up to step `last`, without its clocks and what each of its machines has and needs."""
    ignored = ("time", "second", "compilations", "memory/")
    found = [line for line in lines(workdir) if line["step"] <= last]
    return [{k: v for k, v in line.items() if not any(clock in k for clock in ignored)} for line in found]


def steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def bits(workdir: Path, step: int) -> dict[str, int]:
    """The sums over the bits of every array of a checkpoint."""
    return json.loads((workdir / "checkpoints" / str(step) / "record" / "metadata").read_text())["bit_sums"]


def train(folder: Path, run: str, processes: int, **settings) -> Group:
    group = Group(folder, run, processes, **settings)
    assert group.finish() == [0] * processes, group.said()
    return group


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two processes with two devices each; the second gets SIGTERM in the first step of training."""
    folder = tmp_path_factory.mktemp("hosts")
    group = Group(folder, "several", 2)
    while not any(line["phase"] == "start" for line in lines(folder / "several")):
        assert group.processes[0].poll() is None, group.said()
        time.sleep(0.05)
    group.processes[1].send_signal(signal.SIGTERM)
    assert group.finish() == [75, 75], group.said()
    for copy in ("resumed_by_one", "resumed_by_four"):
        shutil.copytree(folder / "several", folder / copy)
    return folder, group


@pytest.fixture(scope="module")
def alone(stopped):
    """One process with four devices: an uninterrupted run, then what two processes began."""
    folder, _ = stopped
    train(folder, "alone resumed_by_one", 1)
    return folder


def test_told_to_stop_on_one_host_all_save_and_stop_after_the_same_step(stopped):
    folder, _ = stopped
    last = lines(folder / "several")[-1]["step"]
    assert 1 <= last < STEPS
    assert steps(folder / "several") == [*range(1, last + 1)]


def test_two_processes_train_as_one_bit_for_bit(stopped, alone):
    last = steps(alone / "several")[-1]
    assert numbers(alone / "several") == numbers(alone / "alone", last)  # losses, gradients, tokens, grades
    assert lines(alone / "several", "episodes.jsonl") == lines(alone / "alone", "episodes.jsonl")[:last]
    assert bits(alone / "several", last) == bits(alone / "alone", last)


def test_what_two_processes_saved_goes_on_in_one(alone):
    assert numbers(alone / "resumed_by_one") == numbers(alone / "alone")
    assert bits(alone / "resumed_by_one", STEPS) == bits(alone / "alone", STEPS)


def test_the_second_process_writes_nothing_but_its_part_of_checkpoints_and_says_nothing(stopped):
    folder, group = stopped
    first, second = (
        [path for path in listing.read_text().splitlines() if str(folder) in path] for listing in group.writes
    )
    assert any(path.endswith("metrics.jsonl") for path in first)
    assert [path for path in second if ".orbax-checkpoint-tmp/" not in path] == []
    for words in ("cold start", "executor", "preempted"):
        assert words in group.logs[0].read_text()
        assert words not in group.logs[1].read_text()


@pytest.mark.slow
def test_what_two_processes_saved_goes_on_in_four(alone):
    train(alone, "resumed_by_four", 4)
    assert numbers(alone / "resumed_by_four") == numbers(alone / "alone")
    assert bits(alone / "resumed_by_four", STEPS) == bits(alone / "alone", STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(4, 1, 1), (1, 4, 1), (1, 2, 2)], ids=lambda layout: "x".join(map(str, layout)))
@pytest.mark.parametrize("processes", [2, 4])
def test_every_layout_trains_in_several_processes_as_in_one(tmp_path_factory, layout, processes):
    folder = tmp_path_factory.mktemp("layout")
    sizes = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), layout, strict=True))
    for run, count in (("alone", 1), ("several", processes)):
        train(folder, run, count, **sizes, stages__mode="joint", model__kv_heads=2)
    several, alone = numbers(folder / "several"), numbers(folder / "alone")
    last_bit = 0 if layout == (4, 1, 1) else 1e-6
    for ours, theirs in zip(several, alone, strict=True):
        norms = [name for name in theirs if name.endswith("gradient_norm")]  # of weights that are cut, in another order
        found, expected = ([line.pop(name) for name in norms] for line in (ours, theirs))
        assert found == pytest.approx(expected, rel=last_bit, abs=0)
    assert several == alone
    assert bits(folder / "several", STEPS) == bits(folder / "alone", STEPS)


@pytest.mark.slow
def test_processes_that_sample_their_own_questions_train_as_one_does(tmp_path_factory):
    """Three questions on two processes: one has one more. Designs are sampled, tools may run."""
    folder = tmp_path_factory.mktemp("apart")
    apart = {"train__questions": 3, "cold_start__steps": 20, "generation__per_host": True, "generation__tensor": 2}
    more = {"model__kv_heads": 2, "tree__fixed_design": "a=solve()", "tree__w_format": 1.0, "tree__executions": 8}
    train(folder, "alone", 1, **apart | more | {"generation__per_host": False, "generation__tensor": 1})
    train(folder, "apart", 2, **apart | more)
    train(folder, "apart_in_one", 1, **apart | more)
    assert any(line.get("credit/advantage_nonzero") for line in lines(folder / "alone"))
    alone = [line for line in numbers(folder / "alone") if line["phase"] == "executor"]
    for name in ("apart", "apart_in_one"):
        found = [line for line in numbers(folder / name) if line["phase"] == "executor"]
        assert len(found) == len(alone) == STEPS
        for ours, theirs in zip(found, alone, strict=True):
            assert ours.keys() == theirs.keys()
            for key in ours:
                if key != "phase" and not key.startswith("engine/"):
                    assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), key
        assert [words(line) for line in lines(folder / name, "episodes.jsonl")] == [
            words(line) for line in lines(folder / "alone", "episodes.jsonl")
        ]
        for a, b in zip(*(weights(small(**SETTINGS | more), folder / run) for run in (name, "alone")), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def words(episode: dict) -> list:
    """What was said in an episode, and what it earned."""
    return [(d["text"], d["reward"], [(e["turns"], e["reward"]) for e in d["executions"]]) for d in episode["designs"]]


@pytest.mark.slow
def test_a_fault_in_one_process_ends_all_and_each_says_whose(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fault")
    group = Group(folder, "broken", 2, generation__per_host=True)
    assert all(code not in (0, None) for code in group.finish())
    for log in group.logs:
        assert "process 1: RuntimeError: broken here" in log.read_text()


PROGRAM = """
import json, sys
from pathlib import Path
from metaagentx import checkpoint, command_line, hosts
from metaagentx.primary import PrimaryTask, told
from metaagentx.tasks.task import GradingFailed
coordinator, process, patience, *claims = sys.argv[1:]
with command_line.errors_in_words():
    hosts.join(coordinator, 2, int(process), float(patience))
for claim in claims:
    folder, seed = claim.split("#")
    try:
        with checkpoint.claim(Path(folder), {"seed": int(seed)}, lambda ours, theirs: []):
            pass
    except (checkpoint.CheckpointError, hosts.HostsError) as error:
        print(error)

class Task:
    name = "where"
    def grading(self, question, answer):
        def verdict():
            if answer == "lost":
                raise GradingFailed(f"lost on {process}")
            return 0.5 + int(process)
        return verdict

if claims:
    print(told(lambda: f"ran on {process}"))
    print("graded", PrimaryTask(Task()).grading(None, "an answer")())
    try:
        PrimaryTask(Task()).grading(None, "lost")()
    except GradingFailed as failure:
        print(failure)
    print("all", hosts.everyones(lambda: b"abab" * int(process)))
    try:
        hosts.everyones(lambda: [b"fine", b"", None][int(process) * 2].hex().encode())
    except hosts.HostsError as error:
        print("agreed:", error)
"""


def meet(*arguments: list[str]) -> list[tuple[int, str]]:
    """Exit code and output of a process for each list of arguments."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, *words], env=environment, **pipes) for words in arguments
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def test_what_processes_must_share_is_refused_by_all_and_the_first_has_the_word(tmp_path):
    address, one, other = f"localhost:{free_port()}", tmp_path / "one", tmp_path / "other"
    first, second = meet([address, "0", "100", f"{one}#0", f"{one}#1"], [address, "1", "100", f"{one}#7", f"{other}#1"])
    for code, said in (first, second):
        assert code == 0
        assert "the config of process 1 is not that of process 0" in said
        assert f"not every process sees {tmp_path}" in said
        assert "ran on 0\ngraded 0.5\nlost on 0\n" in said
        assert "all [b'', b'abab']\nagreed: process 1: AttributeError: " in said
    assert json.loads((one / "config.json").read_text()) == {"seed": 1}
    assert not other.exists()


def test_processes_that_do_not_meet_say_so_in_a_line():
    address = f"localhost:{free_port()}"
    ((code, said),) = meet([address, "1", "3"])
    assert code == 2
    assert f"error: 2 processes did not meet at {address} within 3 s" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((None, None, None), "give --coordinator=HOST:PORT --processes=N --process=I"),
        (("localhost", 2, 0), "must be HOST:PORT of process 0, not 'localhost'"),
        (("localhost:1", 2, 2), "--process must be from 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused_by_name(arguments, expected):
    with pytest.raises(HostsError, match=expected):
        join(*arguments, patience=5)
