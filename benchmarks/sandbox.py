"""What it costs to run a program that a model wrote.

    python -m benchmarks.sandbox --output=benchmarks/results/cpu/sandbox.json

Three ways in the same run, taking turns: `pool` (a warm worker forks a confined child), `one_shot` (bubblewrap is
started and ended for each program) and `subprocess` (an interpreter is started, with limits but nothing that isolates).
Everything is pinned to one core. Latency is wall time from handing a program over to its last answer, so the machine's
load is in it; programs per core and second are by processor time of all processes, so it is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metaagentx.tools.jail import Usage, bubblewraps, jailed
from metaagentx.tools.python_tool import make_python
from metaagentx.tools.sandbox import Sandbox, SandboxOptions
from metaagentx.tools.worker import Patience, Worker

PROGRAM = "def f(n):\n    return sum(range(n))\n"
CASES = (1, 10)  # calls of one program
PACKAGES = ("numpy", "sympy")
TOOL_PROGRAMS = {
    "print": "print(6 * 7)",
    "numpy": "import numpy\nprint(numpy.arange(4).sum())",
    "sympy": "import sympy\nprint(sympy.factor(sympy.Symbol('x') ** 2 - 1))",
}
BATCH = 10  # programs before the next way has its turn
_TICK = os.sysconf("SC_CLK_TCK")


def measure(ways: dict[str, Callable[[], None]], spent: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Wall and processor seconds of each way, in turns. `spent`: processor seconds of a way so far."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor = dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            before = spent[name]()
            for _ in range(BATCH):
                start = time.perf_counter()
                way()
                wall[name].append(time.perf_counter() - start)
            processor[name] += spent[name]() - before
    return {name: summary(wall[name], processor[name]) for name in ways}


def summary(wall: Sequence[float], processor: float) -> dict[str, float]:
    """Milliseconds of latency, and programs per second of one core."""
    steps = statistics.quantiles(wall, n=20)
    return {
        "programs": len(wall),
        "min_ms": round(min(wall) * 1e3, 2),
        "median_ms": round(statistics.median(wall) * 1e3, 2),
        "quartiles_ms": [round(steps[4] * 1e3, 2), round(steps[14] * 1e3, 2)],
        "p95_ms": round(steps[18] * 1e3, 2),
        "processor_ms": round(processor / len(wall) * 1e3, 2),
        "programs_per_core_second": round(len(wall) / processor, 1),
    }


def own_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def pool_seconds(worker: Worker) -> float:
    """Processor time of this process, of a worker and of the children that it has reaped."""
    stat = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + sum(map(int, stat[11:15])) / _TICK


def three_ways(options: SandboxOptions, cases: int, rounds: int) -> dict[str, Any]:
    """Latency and throughput of a small program with so many calls."""
    calls = [("f", [100 + number]) for number in range(cases)]
    wanted = [(sum(range(100 + number)),) for number in range(cases)]
    command = jailed(bubblewraps()[0], Usage(options.memory_mb << 20, options.cpu_seconds, packages=()))
    patience = Patience(options.seconds, options.output_kb << 10)
    with warnings.catch_warnings(action="ignore"):
        plain = Sandbox(SandboxOptions(isolation="none", workers=1))
    with contextlib.closing(plain), contextlib.closing(Sandbox(options)) as pool:

        def check(answers: Any) -> None:
            assert [answers.value(number) for number in range(cases)] == wanted, answers

        def one_shot() -> None:
            worker = Worker(command)
            check(worker.run(PROGRAM, calls, patience))
            worker.kill()

        return measure(
            {
                "pool": lambda: check(pool.run(PROGRAM, calls)),
                "one_shot": one_shot,
                "subprocess": lambda: check(plain.run(PROGRAM, calls)),
            },
            {"pool": lambda: pool_seconds(pool.workers()[0]), "one_shot": own_seconds, "subprocess": own_seconds},
            rounds,
        )


def tool(options: SandboxOptions, rounds: int) -> dict[str, Any]:
    """Latency of `python_execute`, plain and with packages that are loaded beforehand, against a subprocess."""
    loaded = SandboxOptions(**{name: getattr(options, name) for name in ("seconds", "workers")}, packages=PACKAGES)
    with warnings.catch_warnings(action="ignore"):
        plain = Sandbox(SandboxOptions(isolation="none", workers=1, packages=PACKAGES))
    start = time.perf_counter()
    with (
        contextlib.closing(plain),
        contextlib.closing(Sandbox(loaded)) as warm,
        contextlib.closing(Sandbox(options)) as pool,
    ):
        boot = time.perf_counter() - start
        boxes = {"pool": pool, "pool_with_packages": warm, "subprocess": plain}
        found: dict[str, Any] = {"start_of_both_pools_ms": round(boot * 1e3)}
        for name, code in TOOL_PROGRAMS.items():
            ways = {way: box for way, box in boxes.items() if name == "print" or way != "pool"}
            spent = {
                way: own_seconds if box is plain else lambda box=box: pool_seconds(box.workers()[0])
                for way, box in ways.items()
            }
            found[name] = measure(
                {way: lambda box=box, code=code: make_python(box).function(code=code) for way, box in ways.items()},
                spent,
                rounds if name == "print" else max(rounds // 5, 1),
            )
        return found


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """How many times as fast the pool is, by the median and by processor time."""
    found = {}
    for cases in CASES:
        ways = result[f"cases_{cases}"]
        for other in ("one_shot", "subprocess"):
            name = f"cases_{cases}, pool against {other}"
            found[f"{name}, latency"] = round(ways[other]["median_ms"] / ways["pool"]["median_ms"], 2)
            found[f"{name}, throughput"] = round(ways[other]["processor_ms"] / ways["pool"]["processor_ms"], 2)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the sandbox.")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--rounds", type=int, default=20, help=f"turns of each way, of {BATCH} programs")
    given = parser.parse_args(arguments)
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    options = SandboxOptions(workers=1)
    result: dict[str, Any] = {"load_average_before": os.getloadavg()}
    for cases in CASES:
        result[f"cases_{cases}"] = three_ways(options, cases, given.rounds)
    result["python_execute"] = tool(options, given.rounds)
    result["ratios"] = ratios(result)
    result |= {"load_average_after": os.getloadavg(), "processors": os.cpu_count(), "core": core}
    result |= {"machine": platform.platform(), "python": platform.python_version(), "user": os.geteuid()}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
