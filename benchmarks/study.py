"""What the studies share: reading the runs of a sweep, tables of arms, paired contrasts.

Intervals are 95 %: of an arm by Student's t over seeds; of a contrast by a paired bootstrap over seeds and over the
questions, which all seeds and arms share, and by Student's t over the seeds' differences, which of few seeds promises
less and keeps it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import commit
from metaagentx.metrics import JsonLines
from metaagentx.report.statistics import mean_interval, paired_difference

SYSTEM = "trained/trained"
Grades = NDArray[np.float64]  # [S, Q] of seeds and questions


def seeds_of(workdir: Path) -> list[int]:
    """The seeds of a sweep whose cold starts are `cold_start-SEED`."""
    seeds = sorted(int(path.name.rpartition("-")[2]) for path in workdir.glob("cold_start-*") if path.is_dir())
    if not seeds:
        raise FileNotFoundError(f"{workdir} holds no study (no cold_start-0): run launch.sweep first")
    return seeds


def finished(workdir: Path, job: str, seeds: Iterable[int]) -> bool:
    """Whether a job has ended for all these seeds."""
    return all((workdir / f"{job}-{seed}" / "results.json").exists() for seed in seeds)


def about(workdir: Path, jobs: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Where and when a study was run, and how long its jobs took; `jobs`: the seeds of each.

    The date is that of the last line of all `metrics.jsonl`, and a job's seconds are those from its first line to its
    last: without compilation before and the final table after, with whatever ran beside it. The commit is that of the
    code that reads the study; "-dirty" where it was changed, and None outside of a git repository.
    """
    folders = {job: [workdir / f"{job}-{seed}" for seed in seeds] for job, seeds in jobs.items()}
    times = {job: np.array([_lasted(folder) for folder in each]) for job, each in folders.items()}
    seconds = {job: (each[:, 1] - each[:, 0]).round(1) for job, each in times.items()}
    ended = datetime.fromtimestamp(max(each.max() for each in times.values()), UTC)
    found = json.loads((next(iter(folders.values()))[0] / "results.json").read_text())
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "date": ended.isoformat(timespec="seconds"),
        "commit": commit(),
        **{key: found[key] for key in ("device", "versions")},
        "seconds": {
            job: {"mean": round(float(each.mean()), 1), "by_seed": each.tolist()} for job, each in seconds.items()
        },
    }


def _lasted(folder: Path) -> tuple[float, float]:
    """When the first and the last line of a run's metrics were written, in seconds since 1970."""
    lines = JsonLines(folder / "metrics.jsonl").read()
    if not lines:
        raise FileNotFoundError(f"{folder} holds no metrics.jsonl: run launch.sweep again")
    return lines[0]["time"], lines[-1]["time"]


def read_arm(
    workdir: Path, job: str, name: str, seeds: Sequence[int], trained: bool = True
) -> tuple[Grades, dict[str, list[float]]]:
    """Mean grades of one arm, and its table row: accuracy, tokens of training and of each test question by seed.

    Args:
      job: whose scores hold the arm. name: the arm's name there. trained: whether the job's training was for it.
    """
    runs = [_run(workdir / f"{job}-{seed}", name) for seed in seeds]
    row = {
        "accuracy": [float(grades.mean()) for grades, _, _ in runs],
        "train_tokens": [spent if trained else 0.0 for _, _, spent in runs],
        "test_tokens_per_question": [tokens for _, tokens, _ in runs],
    }
    return np.stack([grades for grades, _, _ in runs]), row


def _run(folder: Path, name: str) -> tuple[NDArray[np.float64], float, float]:
    """[Q] mean grades of one arm, its test tokens per question, and the tokens that training generated."""
    for file in ("results.json", "scores.npz"):
        if not (folder / file).exists():
            raise FileNotFoundError(f"{folder} is not finished ({file} is missing): run launch.sweep again")
    scores = np.load(folder / "scores.npz")
    spent = json.loads((folder / "results.json").read_text())["train_tokens"]
    grades = scores[f"{name}:correct"].mean(axis=1).astype(np.float64)
    return grades, float(scores[f"{name}:tokens"].mean()), float(spent)


def contrasts(pairs: Iterable[tuple[str, str]], correct: Mapping[str, Grades]) -> dict[str, dict[str, float]]:
    """Paired differences of the arms that are there, over the seeds that both have."""
    found = {}
    for arm, other in pairs:
        if arm in correct and other in correct:
            both = min(len(correct[arm]), len(correct[other]))
            gap = paired_difference(correct[arm][:both], correct[other][:both])
            by_seed = mean_interval(correct[arm][:both].mean(axis=1) - correct[other][:both].mean(axis=1))
            found[f"{arm} - {other}"] = {
                "difference": gap.value,
                "low": gap.low,
                "high": gap.high,
                "low_by_seed": by_seed.low,
                "high_by_seed": by_seed.high,
            }
    return found


def render_arms(study: Mapping[str, Any]) -> list[str]:
    """The arms and their contrasts as lines of Markdown."""
    lines = [
        "| arm | accuracy | 95 % interval | training tokens | tokens per test question |",
        "|---|---|---|---|---|",
    ]
    for arm, found in study["arms"].items():
        interval = mean_interval(found["accuracy"])
        lines.append(
            f"| {arm} | {interval.value:.1%} | {interval.low:.1%} to {interval.high:.1%} "
            f"| {np.mean(found['train_tokens']):,.0f} | {np.mean(found['test_tokens_per_question']):.1f} |"
        )
    lines += ["", "| contrast | points | 95 % interval | by seeds alone |", "|---|---|---|---|"]
    for name, found in study["contrasts"].items():
        lines.append(
            f"| {name} | {points(found['difference'])} | {points(found['low'])} to {points(found['high'])} "
            f"| {points(found['low_by_seed'])} to {points(found['high_by_seed'])} |"
        )
    return lines


def points(share: float) -> str:
    return f"{100 * share:+.1f}"


def main(
    about: str, collect: Callable[[Path], dict[str, Any]], render: Callable[[dict[str, Any]], str], output: Path
) -> None:
    """The command line of a study: collect, write as JSON, print as Markdown."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="work directory of the sweep")
    parser.add_argument("--output", type=Path, default=output)
    args = parser.parse_args()
    try:
        study = collect(args.workdir)
    except FileNotFoundError as error:
        parser.error(str(error))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(study, indent=1) + "\n")
    print(render(study))
