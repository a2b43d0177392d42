"""What all benchmarks share: contestants take turns, and what was found is written down with all that it depends on.

A `Bench` starts each contestant as a process of its own (`benchmarks.worker`) on the same cores, lets them take turns
(the order is reversed every other time), and writes `benchmarks/results/<device>/<name>.json`, or `<name>-<part>.json`:
medians, quartiles and every value; ratios made turn by turn, with their median and range; versions, device, date,
cores, threads and load.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.targets import TARGETS
from benchmarks.worker import THREADS, Missing, Turn, Worker

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("metaagentx", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers", "google-tunix")
_ASK = "import jax; d = jax.devices()[0]; print(d.platform); print(d.device_kind); print(jax.device_count())"


@dataclass(frozen=True, slots=True)
class Device:
    """What the contestants run on."""

    platform: str  # "cpu", "gpu", "tpu"
    kind: str  # "cpu", "NVIDIA H100 80GB HBM3"
    count: int

    @property
    def folder(self) -> str:
        """Its name as a folder."""
        return "-".join(self.kind.lower().split())

    @property
    def dtype(self) -> str:
        """What models compute in: on a CPU bfloat16 is slower than float32."""
        return "float32" if self.platform == "cpu" else "bfloat16"


def arguments(text: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; `text` is the module's docstring."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--cores", type=int, default=1, help="CPU cores that all contestants share")
    parser.add_argument("--clock", choices=("wall", "cpu"), help="default: cpu on one core of a CPU, else wall")
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument(
        "--part", help="ends the record's name: of a run of some contestants, since all need more memory"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds; who is not ready then is left out")
    return parser


@dataclass
class Bench:
    """One benchmark's run, and its record in the making."""

    name: str
    given: argparse.Namespace
    device: Device = field(default_factory=lambda: find_device())
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    ratios: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # whatever else was found
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def __post_init__(self) -> None:
        self.load = os.getloadavg()
        self.date = datetime.now(UTC).isoformat(timespec="seconds")
        self.workers: list[Worker] = []
        if self.given.repetitions < 1:
            raise SystemExit(f"--repetitions must be at least 1, not {self.given.repetitions}")

    @property
    def cores(self) -> list[int]:
        """The cores of every contestant; none: all. The last ones, since a machine's own work is on the first."""
        if self.device.platform != "cpu":
            return []
        return sorted(os.sched_getaffinity(0))[-self.given.cores :]

    @property
    def clock(self) -> str:
        """Which seconds count: "cpu" where others use the machine too and one core is all that a contestant has."""
        return self.given.clock or ("cpu" if len(self.cores) == 1 else "wall")

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of every contestant."""
        kept = {"JAX_COMPILATION_CACHE_DIR": str(Path("~/.cache/metaagentx/jax").expanduser())} | {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"
        }
        if self.device.platform != "cpu":
            return kept | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # contestants share the device's memory
        threads = {name: str(len(self.cores)) for name in THREADS} | {"TOKENIZERS_PARALLELISM": "false"}
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={str(len(self.cores) > 1).lower()}"
        # Huge pages for large arrays, whoever makes them.
        threads |= {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")}
        return kept | threads | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}

    def seconds(self, turn: Turn) -> float:
        """What a turn took, by this run's clock."""
        return turn.cpu if self.clock == "cpu" else turn.wall

    def start(self, contestant: str, target: str, **options: Any) -> Worker | None:
        """A contestant, or None where it is left out, not installed, late or dead; that is said, and written down."""
        if contestant in self.given.without:
            self.skipped[contestant] = "left out"
            return None
        try:
            self.console.print(f"{contestant}: starts, and compiles what is not on the disk")
            worker = Worker(target, self.cores, self.environment, self.given.limit, **options)
        except Missing as error:
            self.skipped[contestant] = str(error)
            self.console.print(f"[yellow]{contestant} is left out: {error}[/]")
            return None
        self.workers.append(worker)
        self.console.print(f"{contestant}: ready after {worker.started.wall:.1f} s, {worker.started.cpu:.1f} of a core")
        return worker

    def compare(
        self,
        case: str,
        contestants: Mapping[str, Callable[[], Turn]],
        score: Callable[[Turn], float],
        unit: str,
        *,
        warmups: int = 1,
    ) -> dict[str, list[Turn]]:
        """The turns of each contestant after its warm-up; `score` of a turn, in `unit`, is summarised and kept."""
        turns: dict[str, list[Turn]] = {name: [] for name in contestants}
        names = list(contestants)
        for number in range(-warmups, self.given.repetitions):
            for name in names if number % 2 else reversed(names):
                with self.console.status(f"{self.name}, {case}: {name}, turn {number + 1}"):
                    turn = contestants[name]()
                if number >= 0:
                    turns[name].append(turn)
                word = "turn" if number >= 0 else "warm-up"
                self.console.print(f"{case}: {name}, {word}: {score(turn):.5g} {unit}", highlight=False)
        self.results[case] = {
            name: {"unit": unit, **summary([score(turn) for turn in found])}
            | {"wall_s": summary([t.wall for t in found]), "cpu_s": summary([t.cpu for t in found])}
            | {"peak_bytes": max(turn.peak for turn in found)}
            for name, found in turns.items()
        }
        return turns

    def ratio(self, key: str, numerator: Sequence[float], denominator: Sequence[float] = ()) -> None:
        """Hold `numerator` over `denominator`, turn by turn, to the target `key`; without a denominator, itself."""
        pairs = zip(numerator, denominator, strict=True) if denominator else ((value, 1.0) for value in numerator)
        values = [above / below for above, below in pairs]
        target, value = TARGETS[key], statistics.median(values)
        self.ratios[key] = {
            "what": target.what,
            "ratio": _rounded(value),
            "range": [_rounded(min(values)), _rounded(max(values))],
            "turns": len(values),
            "gate": target.gate,
            "goal": target.goal,
            "reached": target.passed(value, target.gate),
            "goal_reached": target.passed(value, target.goal),
        }

    def record(self) -> dict[str, Any]:
        """All that was found and what it depends on."""
        versions = {"python": platform.python_version()} | installed(PACKAGES) | self.versions
        return {
            "benchmark": self.name,
            "command": " ".join(["python", "-m", f"benchmarks.{self.name}", *sys.argv[1:]]),
            "date": self.date,
            "commit": commit(),
            "device": {"platform": self.device.platform, "kind": self.device.kind, "count": self.device.count}
            | {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
            "versions": versions,
            "clock": self.clock,
            "pinned": {"cores": self.cores, "environment": self.environment},
            "load_average": {"before": list(self.load), "after": list(os.getloadavg())},
            "repetitions": self.given.repetitions,
            "ratios": dict(sorted(self.ratios.items())),
            "results": self.results,
            "facts": self.facts,
            "skipped": self.skipped,
        }

    def finish(self) -> Path:
        """End the contestants, write the record and show it."""
        for worker in self.workers:
            worker.close()
        name = f"{self.name}-{self.given.part}" if self.given.part else self.name
        path = RESULTS / self.device.folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.record(), indent=1) + "\n", encoding="utf-8")
        show(self.record(), Console())
        self.console.print(f"written: {path}")
        return path


def find_device() -> Device:
    """JAX's first device, asked in another process: this one stays free of it."""
    command = [sys.executable, "-c", _ASK]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return Device(answer[0], answer[1], int(answer[2]))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles (the range, where fewer than three), and all values."""
    low, _, high = statistics.quantiles(values, method="inclusive") if len(values) > 1 else (values[0],) * 3
    quartiles = [_rounded(low), _rounded(high)]
    return {"median": _rounded(statistics.median(values)), "quartiles": quartiles, "values": [*map(_rounded, values)]}


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The code that runs: a commit, and "-dirty" if any file but records and pages differs. None without git."""
    if shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(RESULTS.parents[1]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs")
    return f"{git('rev-parse', 'HEAD')}{'-dirty' if changed else ''}".removeprefix("-dirty") or None


def processor() -> str:
    """The CPU's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def show(record: Mapping[str, Any], console: Console) -> None:
    """A record as tables."""
    table = Table("case", "contestant", "median", "quartiles", "unit", title=record["command"])
    for case, contestants in record["results"].items():
        for name, found in contestants.items():
            low, high = found["quartiles"]
            table.add_row(case, name, f"{found['median']:.5g}", f"{low:.5g} – {high:.5g}", found["unit"])
    console.print(table)
    table = Table("target", "ratio", "range", "gate", "goal", "")
    for key, found in record["ratios"].items():
        low, high = found["range"]
        mark = "goal" if found["goal_reached"] else "gate" if found["reached"] else "[red]below[/]"
        bounds = (f"{found['gate']:g}", f"{found['goal']:g}")
        table.add_row(f"{key}: {found['what']}", f"{found['ratio']:.3g}", f"{low:.3g} – {high:.3g}", *bounds, mark)
    console.print(table)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
