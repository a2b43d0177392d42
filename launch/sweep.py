"""A sweep: many runs that differ in a few flags, run on this machine, resumed, and tabulated.

    python -m launch.sweep --config=configs/x.py --workdir=runs/x --parallel=2

The config file defines `sweep() -> list[dict]`: each dict is one job, from flags of the training program to values,
`{"config.seed": 1, "config.stages.mode": "joint"}`. Four keys are not flags:
  name        names the job and its directory; else a hash of the flags does
  group       its row in the table; else the flags that differ between jobs, seeds aside
  depends_on  the name of a job, or a list of them, to run first
  module      the program, "metaagentx.train" if not given
In a value, "{workdir}" stands for the sweep's directory: "{workdir}/cold-0" is where the job "cold-0" worked.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from launch import local, table

Overrides = dict[str, Any]
NOT_FLAGS = ("name", "group", "depends_on", "module")


def sweep(name: str, values: Iterable[Any]) -> list[Overrides]:
    """One job for each value of one flag."""
    return [{name: value} for value in values]


def fixed(name: str, value: Any) -> list[Overrides]:
    """One flag at one value: the neutral partner in a product, repeated in a zip."""
    return [{name: value}]


def _merge(parts: Sequence[Overrides]) -> Overrides:
    merged = {key: value for part in parts for key, value in part.items()}
    if len(merged) != sum(map(len, parts)):
        keys = [key for part in parts for key in part]
        raise ValueError(f"a flag is set twice: {', '.join(sorted({key for key in keys if keys.count(key) > 1}))}")
    return merged


def product(*sweeps: Sequence[Overrides], **axes: Iterable[Any]) -> list[Overrides]:
    """Every combination; the last axis varies fastest. `product(**{"config.seed": range(5)})` is short for `sweep`."""
    return [_merge(row) for row in itertools.product(*sweeps, *(sweep(key, each) for key, each in axes.items()))]


def zipit(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """The i-th of each together; sweeps of length 1 are repeated, any other difference in length is an error."""
    length = max(map(len, sweeps), default=0)
    if wrong := [len(each) for each in sweeps if len(each) not in (1, length)]:
        raise ValueError(f"zipit needs sweeps of one length (or of length 1): {wrong[0]} is not {length}")
    return [_merge([each[i % len(each)] for each in sweeps]) for i in range(length)]


def load(path: str) -> list[Overrides]:
    """The jobs of the config file `path` ("configs/x.py" or "configs/x.py:variant")."""
    file = path.partition(":")[0]
    spec = importlib.util.spec_from_file_location("sweep_config", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise ValueError(f"--config must be a Python file, not {file}")
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "sweep"):
        raise ValueError(f"{file} defines no sweep(); it should return a list of dicts from flags to values")
    if not (rows := list(module.sweep())):
        raise ValueError(f"sweep() of {file} returns no jobs")
    return rows


def job_name(overrides: Mapping[str, Any]) -> str:
    """The given name, or one that depends on the flags alone, not on their order or on other jobs."""
    flags = {key: value for key, value in overrides.items() if key not in ("name", "group", "depends_on")}
    return str(overrides.get("name") or hashlib.sha256(json.dumps(flags, sort_keys=True).encode()).hexdigest()[:10])


def jobs(config: str, workdir: Path, rows: Sequence[Overrides], python: str = sys.executable) -> list[local.Job]:
    """One local job for each row; its directory is `workdir/<name>`."""
    made = []
    for row in rows:
        name = job_name(row)
        if Path(name).name != name or name.startswith("."):
            raise ValueError(f"name must be usable as a directory name, not {name!r}")
        flags = {"config": config, "workdir": str(workdir / name)}
        flags |= {key: _text(value, workdir) for key, value in row.items() if key not in NOT_FLAGS}
        module = row.get("module", "metaagentx.train")
        needs = row.get("depends_on", ())
        made.append(
            local.Job(
                name=name,
                command=(python, "-m", module, *(f"--{key}={value}" for key, value in flags.items())),
                directory=workdir / name,
                depends_on=(needs,) if isinstance(needs, str) else tuple(needs),
                # What the job computes, wherever the sweep lies and whichever Python runs it.
                identity=hashlib.sha256(
                    json.dumps([module, config, sorted((k, str(row[k])) for k in row if k not in NOT_FLAGS)]).encode()
                ).hexdigest(),
            )
        )
    return made


def _text(value: Any, workdir: Path) -> str:
    return str(value).replace("{workdir}", str(workdir))


def shard(made: Sequence[local.Job], index: int, count: int) -> list[local.Job]:
    """Part `index` of `count`: jobs that depend on each other stay together, groups of them are dealt out in turn."""
    leader = {job.name: job.name for job in made}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for job in made:
        for other in job.depends_on:
            leader[find(job.name)] = find(other)
    groups = list(dict.fromkeys(find(job.name) for job in made))
    return [job for job in made if groups.index(find(job.name)) % count == index]


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be i/n with 0 <= i < n, not {text!r}")
    return int(index), int(count)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a config file that defines sweep()")
    parser.add_argument("--workdir", type=Path, required=True, help="each job works in a directory below it")
    parser.add_argument("--parallel", type=int, default=1, help="jobs at a time")
    parser.add_argument("--cores_per_job", type=int, default=0, help="cores each job is bound to; 0: an even share")
    parser.add_argument("--shard", type=_part, default=(0, 1), help="i/n: run part i of n of the jobs")
    parser.add_argument("--print", action="store_true", help="print the commands and run nothing")
    parser.add_argument(
        "--metrics", default="", help="columns of the table, comma-separated; else the top level of results.json"
    )
    args = parser.parse_args(argv)
    try:
        rows = load(args.config)
        selected = shard(jobs(args.config, args.workdir, rows), *args.shard)
        if args.print:
            print("\n".join(shlex.join(job.command) for job in selected))
            return 0
        outcomes = local.run(selected, args.parallel, args.cores_per_job)
    except ValueError as error:
        parser.error(str(error))
    summary = table.summarize(rows, [args.workdir / job_name(row) / "results.json" for row in rows])
    args.workdir.mkdir(parents=True, exist_ok=True)
    (args.workdir / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(table.render(summary, [name for name in args.metrics.split(",") if name]))
    return local.exit_code(outcomes)


if __name__ == "__main__":
    sys.exit(main())
