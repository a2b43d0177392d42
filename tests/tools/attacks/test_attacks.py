"""Hostile programs in the real pool, graded by the real grader, among honest ones; and what is left of them after."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import socket
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import bounds_attacks
import grade_attacks
import host_attacks
import kernel_attacks
import pytest
import race_attacks
from attack import ESCAPED, Attack

from metaagentx.tasks.grading import Grader
from metaagentx.tasks.gym import Record
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.tools.worker import Answers, Patience

SUITES = (bounds_attacks, host_attacks, kernel_attacks, grade_attacks, race_attacks)
ATTACKS = tuple(attack for suite in SUITES for attack in suite.ATTACKS)
# What lasts until a bound ends it, and is waited for side by side.
LASTING = frozenset(
    {
        "endless_loop",
        "endless_loop_at_load",
        "endless_sleep",
        "endless_power",
        "deaf",
        "greedy_thread",
        "prints_without_end",
        "large_result",
        "large_results_of_parts",
        "recursion",
        "huge_integer",
        "regular_expression",
        "compiles_itself",
        "decompression",
        "error_without_end",
        "stops_itself",
        "trickles",
    }
)
QUICK = [attack for attack in ATTACKS if attack.name not in LASTING]
OPTIONS = SandboxOptions(seconds=2.0, cpu_seconds=1, memory_mb=256, output_kb=64, workers=2)
EXPECTED = 918273645
SECRETS = ("the secret of the environment", "the secret of the file", str(EXPECTED))
TESTS = (
    {"arguments": [3], "result": EXPECTED},
    {"arguments": ["a"], "result": ["left", 2.5, {"tuple": [True, None]}]},
)
ENTRY = {"answer": "", "metadata": {"source_dataset": "tests", "entry_point": "f", "tests": TESTS}}
RECORD = Record("attacked", "code", "code", "Write f.", json.dumps(ENTRY))
HONEST = f"def f(x):\n    return {EXPECTED} if x == 3 else ['left', 2.5, (True, None)]\n"
STATE = """
import builtins, gc, os, resource, signal, sys
def f():
    handlers = [str(signal.getsignal(number)) for number in signal.Signals]
    limits = [resource.getrlimit(kind) for kind in range(16)]
    modules = [[name, str(module)] for name, module in sorted(sys.modules.items())]
    return [sorted(map(str, vars(builtins).items())), modules, sys.path, sorted(os.environ), handlers, limits,
            sorted(os.sched_getaffinity(0)), os.getcwd(), sys.getrecursionlimit(), sys.getswitchinterval(),
            len(sys.meta_path), [os.get_blocking(n) for n in (0, 1, 2, 3)], hash("x"), os.listdir("/sandbox"),
            hasattr("", "kept_by_an_attack"), int("200") + 0]
"""


class Listening(Grader):
    """The grader, which also keeps what the sandbox answered."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.answers: list = []
        watched = types.SimpleNamespace(submit=self._submit)
        super().__init__(watched, None)  # type: ignore[arg-type]
        self._real = sandbox

    def _submit(self, program, calls):
        self.answers.append(self._real.submit(program, calls))
        return self.answers[-1]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """What attacks look for on the host."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "expected.json").write_text(json.dumps([SECRETS[1], *TESTS]))
    os.environ["HOST_SECRET"] = SECRETS[0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        names = {
            "HOST_FILE": str(folder / "expected.json"),
            "HOST_FOLDER": str(folder),
            "HOST_PORT": server.getsockname()[1],
            "HOST_PID": os.getpid(),
            "REPOSITORY": str(Path(__file__).resolve().parents[3]),
        }
        yield types.SimpleNamespace(names=names, folder=folder, server=server)
    del os.environ["HOST_SECRET"]


@pytest.fixture(scope="module")
def pool(target):
    try:
        sandbox = Sandbox(OPTIONS)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with contextlib.closing(sandbox):
        for warm in [sandbox.submit("import time\ndef f(): time.sleep(0.5)", [("f", [])]) for _ in range(2)]:
            warm.result()
        yield types.SimpleNamespace(
            sandbox=sandbox,
            workers=set(map(id, sandbox.workers())),
            state=state_of(sandbox.run),
            descriptors=len(os.listdir("/proc/self/fd")),
            children=len(children_of(os.getpid())),
        )


def state_of(runner: Callable[..., Answers], *patience: Patience) -> str:
    """What a program can see of the interpreter that it runs in, but for addresses."""
    return re.sub("0x[0-9a-f]+", "", json.dumps(runner(STATE, [("f", [])], *patience).value(0)))


def latencies(*sandboxes: Sandbox) -> list[float]:
    """Median seconds of an honest program in each, in turns: whatever else the machine does, it does to all."""
    taken: list[list[float]] = [[] for _ in sandboxes]
    for _ in range(100):
        for sandbox, times in zip(sandboxes, taken, strict=True):
            start = time.perf_counter()
            assert sandbox.run(HONEST, [("f", [3])]).value(0) == (EXPECTED,)
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def children_of(parent: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{parent}\n" in status.read_text():
                found.append(status.parent.name)
    return found


def got_away(text: str) -> bool:
    return any(found in text for found in (ESCAPED, *SECRETS))


def test_there_are_enough_of_them_and_each_has_a_name() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 100


def attacked(attacks: Sequence[Attack], sandbox: Sandbox, target) -> None:
    """Each of `attacks` is graded at once, between two honest programs; then nothing is left of them."""
    grader = Listening(sandbox)
    programs = [text for attack in attacks for text in (HONEST, attack.program(target.names), HONEST)]
    verdicts = [grader(RECORD, program) for program in programs]
    grades = [verdict() for verdict in verdicts]
    for number, attack in enumerate(attacks):
        assert grades[3 * number :][:3] == [1.0, 0.0, 1.0], attack.name
        answers = grader.answers[3 * number + 1].result()
        assert not got_away(json.dumps(answers.results)), (attack.name, answers)
    for worker in sandbox.workers():
        assert children_of(worker.pid) == []
    assert os.listdir(target.folder) == ["expected.json"]
    assert select.select([target.server], [], [], 0) == ([], [], [])


@pytest.mark.parametrize("attack", QUICK, ids=[attack.name for attack in QUICK])
def test_an_attack_neither_gets_away_nor_passes(attack: Attack, pool, target) -> None:
    attacked([attack], pool.sandbox, target)
    assert state_of(pool.sandbox.run) == pool.state


def test_attacks_that_last_as_long_as_they_may_neither_get_away_nor_pass(pool, target) -> None:
    lasting = [attack for attack in ATTACKS if attack.name in LASTING]
    assert len(lasting) == len(LASTING)
    with contextlib.closing(Sandbox(dataclasses.replace(OPTIONS, workers=6))) as wide:
        attacked(lasting, wide, target)
        states = {state_of(worker.run, Patience(OPTIONS.seconds, 2**16)) for worker in wide.workers()}
    assert states == {pool.state}


def test_afterwards_the_pool_is_as_it_was(pool) -> None:
    assert set(map(id, pool.sandbox.workers())) == pool.workers
    assert len(os.listdir("/proc/self/fd")) <= pool.descriptors
    assert len(children_of(os.getpid())) == pool.children
    with contextlib.closing(Sandbox(OPTIONS)) as fresh:
        used, new = latencies(pool.sandbox, fresh)
    assert used < 1.5 * new


def test_many_programs_leave_no_descriptors_and_no_memory(pool) -> None:
    def size() -> int:
        zygotes = [Path(f"/proc/{worker.pid}/status").read_text() for worker in pool.sandbox.workers()]
        return sum(int(line.split()[1]) for status in zygotes for line in status.splitlines() if "VmRSS" in line)

    before = size()
    for _ in range(300):
        pool.sandbox.run(HONEST, [("f", [3])])
    assert len(os.listdir("/proc/self/fd")) <= pool.descriptors
    assert size() < before + 1024  # kB


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.control], ids=lambda attack: attack.name)
def test_where_nothing_isolates_it_the_same_attack_gets_away(attack: Attack, target) -> None:
    program = attack.program(target.names) + "\nprint(f(3))\n"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    try:
        if not got_away(answer.stdout) and os.geteuid() != 0:
            pytest.skip("not with this user's rights")
        assert got_away(answer.stdout), answer.stderr
    finally:
        for path in target.folder.iterdir():
            if path.name != "expected.json":
                path.unlink()
        with contextlib.suppress(BlockingIOError):
            while True:
                target.server.accept()[0].close()
