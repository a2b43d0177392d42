"""Whole steps of reinforcement learning (target E1), and where the time of a training run goes.

    make peers && .venv/peers/bin/python -m benchmarks.end_to_end

First one tree of four designs and four executions each, recorded and ragged, with SmolLM2-135M-Instruct: rollout, then
a GRPO update on every call of it, by `metaagentx`, by `metaagentx, int8` (which samples with a copy of the weights in 8
bits), by `torch` (transformers' `generate` in waves, a padded step in torch) and by `tunix` (its sampler in waves, its
trainer). Then steps of `metaagentx.train` itself: configs/tiny.py and
SmolLM2 on reasoning-gym, with the share of each part.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import timing
from benchmarks.decode import INT8
from benchmarks.peaks import PEAKS
from benchmarks.tree import cadence
from benchmarks.workload import read_workload, totals
from metaagentx.metrics import JsonLines

STEPS = "benchmarks.rl_steps"
RUNS = {
    "tiny": ("configs/tiny.py", "stages.mode=joint"),  # after its cold start: before it, nothing is worth learning from
    "smollm2": (
        "configs/smollm2_gym.py",
        "cold_start.steps=0",
        "train.questions=1",
        "tree.designs=2",
        "tree.w_cost=1.0",  # an untrained model's answers differ in length, if in nothing else
        # An untrained designer writes no designs; what it costs to ask it is in the replay.
        "tree.fixed_design=a=plan();b=solve()",
        "stages.mode=executor_only",
        "sampling.executor.max_tokens=64",
        "engine.slots=16",
        "pack.row_buckets=(16,)",
    ),
}
SHORT = ("train.evaluate_every=1000", "evaluate.final=False", "evaluate.validation_questions=1")
PARTS = ("time/rollout", "time/credit", "time/pack", "time/update")


def arguments() -> argparse.Namespace:
    parser = timing.arguments(__doc__)
    parser.add_argument("--questions", type=int, default=1, help="trees of a step")
    parser.add_argument("--shrink", type=float, default=4.0, help="replies are so many times as short as recorded")
    parser.add_argument("--slots", type=int, default=16, help="calls side by side")
    parser.add_argument("--steps", type=int, default=3, help="steps of each training run; the first is not counted")
    parser.add_argument("--runs", nargs="*", default=[*RUNS], choices=[*RUNS], help="training runs to split")
    parser.set_defaults(repetitions=1)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    bench = timing.Bench("end_to_end", given)
    workload = {"questions": given.questions, "shrink": given.shrink, "slots": given.slots}
    bench.facts["workload"] = workload | totals(read_workload(given.questions, given.shrink))
    workload["dtype"] = bench.device.dtype
    options = cadence(bench.device)
    contestants = {
        "metaagentx": bench.start("metaagentx", f"{STEPS}:OursStep", **workload, options=options),
        INT8: bench.start(INT8, f"{STEPS}:OursStep", **workload, options=options | {"weights": "int8"}),
        "torch": bench.start("torch", f"{STEPS}:TorchStep", **workload),
        "tunix": bench.start("tunix", f"{STEPS}:TunixStep", **workload),
    }
    turns = bench.compare(
        "one step",
        {name: partial(worker.turn, "step") for name, worker in contestants.items() if worker},
        bench.seconds,
        "seconds",
        warmups=0,  # all programs have been compiled and have run
    )
    for name in {"metaagentx", INT8} & turns.keys():
        if sum(turn.value["compilations"] for turn in turns[name]):
            raise RuntimeError(f"{name} compiled in a turn, so its seconds are not those of a step: {turns[name]}")
    bench.facts["steps"] = {name: [turn.value for turn in found] for name, found in turns.items()}
    taken = {name: [bench.seconds(turn) for turn in found] for name, found in turns.items()}
    for key, name, ours in (
        ("E1/torch", "torch", "metaagentx"),
        ("E1/int8", "torch", INT8),
        ("E1/tunix", "tunix", "metaagentx"),
    ):
        if {name, ours} <= taken.keys():
            bench.ratio(key, taken[name], taken[ours])
    if bench.device.kind in PEAKS and "metaagentx" in turns:
        peak = PEAKS[bench.device.kind].flops
        bench.ratio("G2/update", [turn.value["update_flops"] / peak for turn in turns["metaagentx"]])
    for worker in bench.workers:
        worker.close()
    for name in given.runs:
        try:
            bench.facts[f"training, {name}"] = split(bench, RUNS[name], given.steps)
        except RuntimeError as error:  # what has been measured is kept
            bench.skipped[f"training, {name}"] = str(error)
            bench.console.print(f"[yellow]training, {name}, is left out: {error}[/]")
    bench.finish()


def split(bench: timing.Bench, run: Sequence[str], steps: int) -> dict[str, object]:
    """Median wall seconds of the parts of a step of `metaagentx.train`, all cores, the first step left out."""
    config, *changes = run
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "metaagentx.train", f"--config={config}", f"--workdir={workdir}"]
        command += [f"--config.{change}" for change in (*changes, *SHORT, f"train.steps={steps}")]
        with bench.console.status(f"{bench.name}: {config}, {steps} steps"):
            done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        lines = [line for line in JsonLines(Path(workdir) / "metrics.jsonl").read() if PARTS[0] in line]
    counted = lines[1:] or lines
    if not all(line["credit/advantage_nonzero"] > 0 for line in counted):
        raise RuntimeError(f"{config}: a step trained on nothing, so its seconds are no step's")
    names = [*PARTS, *sorted(name for name in counted[0] if name.endswith("_seconds"))]
    names += ["rollout/generated_tokens", "rollout/tokens_per_second", "engine/occupancy"]
    medians = {name: statistics.median(line[name] for line in counted) for name in names}
    total = sum(medians[part] for part in PARTS)
    return {
        "command": " ".join(["python", *command[1:-1]]).replace(workdir, "runs/split"),
        "steps": len(counted),
        "seconds": round(total, 3),
        "shares": {part: round(medians[part] / total, 3) for part in PARTS},
        "medians": {name: round(value, 4) for name, value in medians.items()},
    }


if __name__ == "__main__":
    main()
