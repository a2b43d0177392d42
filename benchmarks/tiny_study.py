"""The tables of the tiny study, from the work directories of its runs.

    python -m launch.sweep --config=configs/tiny_study.py --workdir=runs/study --parallel=2
    python -m benchmarks.tiny_study runs/study

Writes `benchmarks/results/tiny_study.json` (raw accuracy of every seed, tokens, paired contrasts) and prints the tables
in Markdown (see `benchmarks.study`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import study
from benchmarks.study import SYSTEM, points
from configs.tiny_study import FEW_SEEDS
from metaagentx.report.statistics import mean_interval

# arm -> (job whose scores hold it, the arm's name there)
ARMS = {
    "single": ("stagewise", "single/cold"),
    "self_consistency": ("stagewise", "vote/cold"),
    "self_consistency_trained": ("stagewise", "vote/trained"),
    "cold_start": ("stagewise", "cold/cold"),
    "static": ("static", SYSTEM),
    "designer_only": ("designer_only", SYSTEM),
    "executor_only": ("executor_only", SYSTEM),
    "joint": ("joint", SYSTEM),
    "stagewise": ("stagewise", SYSTEM),
    "stagewise_1": ("stagewise_1", SYSTEM),
    "stagewise_5": ("stagewise_5", SYSTEM),
    "stagewise_30": ("stagewise_30", SYSTEM),
    "joint_steps": ("joint_steps", SYSTEM),
    "joint_updates": ("joint_updates", SYSTEM),
}
EVERY_SEED = tuple(ARMS)[: tuple(ARMS).index("stagewise") + 1]  # the others have the first few seeds
UNTRAINED = ("single", "self_consistency", "cold_start")
CONTRASTS = (
    ("stagewise", "cold_start"),
    ("stagewise", "designer_only"),
    ("stagewise", "executor_only"),
    ("stagewise", "self_consistency"),
    ("stagewise", "self_consistency_trained"),
    ("stagewise", "static"),
    ("stagewise", "joint"),
    ("stagewise", "joint_steps"),
    ("stagewise", "joint_updates"),
    ("stagewise", "stagewise_1"),
    ("stagewise", "stagewise_5"),
    ("stagewise", "stagewise_30"),
)


def collect(workdir: Path) -> dict[str, Any]:
    """Everything that the study found; variants that are not finished are left out, and listed.

    Raises FileNotFoundError naming the first run of a main arm that is not finished.
    """
    seeds = study.seeds_of(workdir)
    correct, arms = {}, {}
    left_out = [
        arm for arm, (job, _) in ARMS.items() if arm not in EVERY_SEED and not study.finished(workdir, job, FEW_SEEDS)
    ]
    jobs = {"cold_start": seeds}
    for arm, (job, name) in ARMS.items():
        if arm not in left_out:
            own = jobs[job] = [seed for seed in seeds if arm in EVERY_SEED or seed in FEW_SEEDS]
            correct[arm], arms[arm] = study.read_arm(workdir, job, name, own, trained=arm not in UNTRAINED)
    return {
        "seeds": seeds,
        "questions": int(correct["stagewise"].shape[1]),
        **study.about(workdir, jobs),
        "left_out": left_out,
        "arms": arms,
        "contrasts": study.contrasts(CONTRASTS, correct),
        "designs_at_cold_start": _designs(workdir, seeds),
        "crossplay": _crossplay(workdir, seeds),
    }


def _designs(workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Does the choice of a design matter to a cold executor? The best design per kind against the best for all.

    Both are chosen on validation questions and measured on test questions.
    """
    oracle, fixed, table = [], [], {}
    for seed in seeds:
        found = json.loads((workdir / f"cold_start-{seed}" / "results.json").read_text())["reference_designs"]
        validation, test = found["validation"], found["test"]
        kinds = list(next(iter(test.values())))
        best = {kind: max(validation, key=lambda name, kind=kind: validation[name][kind]) for kind in kinds}
        single = max(validation, key=lambda name: sum(validation[name].values()))
        oracle.append(float(np.mean([test[best[kind]][kind] for kind in kinds])))
        fixed.append(float(np.mean([test[single][kind] for kind in kinds])))
        for name, by_kind in test.items():
            for kind, accuracy in by_kind.items():
                table.setdefault(name, {}).setdefault(kind, []).append(accuracy)
    gain = mean_interval(np.subtract(oracle, fixed))
    return {
        "oracle": oracle,
        "best_fixed": fixed,
        "difference": {"difference": gain.value, "low": gain.low, "high": gain.high},
        "accuracy": {name: {k: float(np.mean(v)) for k, v in by_kind.items()} for name, by_kind in table.items()},
    }


def _crossplay(workdir: Path, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Accuracy of designer/executor pairs of cold and trained weights, one value a seed."""
    runs = [json.loads((workdir / f"stagewise-{seed}" / "results.json").read_text())["crossplay"] for seed in seeds]
    return {pair: [run[pair] for run in runs] for pair in runs[0]}


def render(found: dict[str, Any]) -> str:
    """The study as Markdown tables."""
    lines = [f"Not finished and left out: {', '.join(found['left_out'])}.", ""] if found["left_out"] else []
    lines += study.render_arms(found)
    designs = found["designs_at_cold_start"]
    kinds = list(next(iter(designs["accuracy"].values())))
    lines += ["", f"| design, cold executor | {' | '.join(kinds)} | all |", "|---" * (len(kinds) + 2) + "|"]
    for name, by_kind in designs["accuracy"].items():
        cells = " | ".join(f"{by_kind[kind]:.1%}" for kind in kinds)
        lines.append(f"| {name} | {cells} | {np.mean(list(by_kind.values())):.1%} |")
    gain = designs["difference"]
    lines += [
        "",
        f"Best design per kind {np.mean(designs['oracle']):.1%}, best for all {np.mean(designs['best_fixed']):.1%}: "
        f"{points(gain['difference'])} points ({points(gain['low'])} to {points(gain['high'])}).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    study.main(__doc__ or "", collect, render, Path("benchmarks/results/tiny_study.json"))
