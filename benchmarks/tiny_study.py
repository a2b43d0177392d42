"""The tables of the tiny study, from the work directories of its runs.

    python -m launch.sweep --config=configs/tiny_study.py --workdir=runs/study --parallel=2
    python -m benchmarks.tiny_study runs/study

Writes `benchmarks/results/tiny_study.json` (raw accuracy of every seed, tokens, paired contrasts) and prints the tables
in Markdown. Intervals are 95 %: of an arm by Student's t over seeds, of a contrast by a paired bootstrap over seeds and
over the questions, which all seeds and arms share.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.tiny_study import FEW_SEEDS
from metaagentx.report.statistics import mean_interval, paired_difference

SYSTEM = "trained/trained"
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
    seeds = sorted(int(path.name.rpartition("-")[2]) for path in workdir.glob("cold_start-*") if path.is_dir())
    if not seeds:
        raise FileNotFoundError(f"{workdir} holds no study (no cold_start-0): run launch.sweep first")
    correct: dict[str, NDArray[np.float64]] = {}
    arms: dict[str, dict[str, list[float]]] = {}
    left_out = [arm for arm, (job, _) in ARMS.items() if arm not in EVERY_SEED and not _finished(workdir, job)]
    for arm, (job, name) in ARMS.items():
        if arm in left_out:
            continue
        runs = [_run(workdir / f"{job}-{seed}", name) for seed in seeds if arm in EVERY_SEED or seed in FEW_SEEDS]
        correct[arm] = np.stack([grades for grades, _, _ in runs])
        arms[arm] = {
            "accuracy": [float(grades.mean()) for grades, _, _ in runs],
            "train_tokens": [0.0 if arm in UNTRAINED else spent for _, _, spent in runs],
            "test_tokens_per_question": [tokens for _, tokens, _ in runs],
        }

    contrasts = {}
    for arm, other in CONTRASTS:
        if other in left_out:
            continue
        seeds_of_both = min(len(correct[arm]), len(correct[other]))
        found = paired_difference(correct[arm][:seeds_of_both], correct[other][:seeds_of_both])
        contrasts[f"{arm} - {other}"] = {"difference": found.value, "low": found.low, "high": found.high}
    about = json.loads((workdir / f"stagewise-{seeds[0]}" / "results.json").read_text())
    return {
        "seeds": seeds,
        "questions": int(correct["stagewise"].shape[1]),
        "device": about["device"],
        "versions": about["versions"],
        "left_out": left_out,
        "arms": arms,
        "contrasts": contrasts,
        "designs_at_cold_start": _designs(workdir, seeds),
        "crossplay": _crossplay(workdir, seeds),
    }


def _finished(workdir: Path, job: str) -> bool:
    return all((workdir / f"{job}-{seed}" / "results.json").exists() for seed in FEW_SEEDS)


def _run(folder: Path, name: str) -> tuple[NDArray[np.float64], float, float]:
    """[Q] mean grades of one arm, its test tokens per question, and the tokens that training generated."""
    for file in ("results.json", "scores.npz"):
        if not (folder / file).exists():
            raise FileNotFoundError(f"{folder} is not finished ({file} is missing): run launch.sweep again")
    scores = np.load(folder / "scores.npz")
    spent = json.loads((folder / "results.json").read_text())["train_tokens"]
    grades = scores[f"{name}:correct"].mean(axis=1).astype(np.float64)
    return grades, float(scores[f"{name}:tokens"].mean()), float(spent)


def _designs(workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Does the choice of a design matter to a cold executor? The best design per kind against the best for all.

    Both are chosen on validation questions and measured on test questions.
    """
    oracle, fixed, table = [], [], {}
    for seed in seeds:
        found = json.loads((workdir / f"cold_start-{seed}" / "results.json").read_text())["reference_designs"]
        validation, test = found["validation"], found["test"]
        kinds = sorted(next(iter(test.values())))
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


def render(study: dict[str, Any]) -> str:
    """The study as Markdown tables."""
    lines = [f"Not finished and left out: {', '.join(study['left_out'])}.", ""] if study["left_out"] else []
    lines += [
        "| arm | accuracy | 95 % interval | training tokens | tokens per test question |",
        "|---|---|---|---|---|",
    ]
    for arm, found in study["arms"].items():
        interval = mean_interval(found["accuracy"])
        lines.append(
            f"| {arm} | {interval.value:.1%} | {interval.low:.1%} to {interval.high:.1%} "
            f"| {np.mean(found['train_tokens']):,.0f} | {np.mean(found['test_tokens_per_question']):.1f} |"
        )
    lines += ["", "| contrast | points | 95 % interval |", "|---|---|---|"]
    for name, found in study["contrasts"].items():
        lines.append(
            f"| {name} | {_points(found['difference'])} | {_points(found['low'])} to {_points(found['high'])} |"
        )
    designs = study["designs_at_cold_start"]
    kinds = sorted(next(iter(designs["accuracy"].values())))
    lines += ["", f"| design, cold executor | {' | '.join(kinds)} | all |", "|---" * (len(kinds) + 2) + "|"]
    for name, by_kind in designs["accuracy"].items():
        cells = " | ".join(f"{by_kind[kind]:.1%}" for kind in kinds)
        lines.append(f"| {name} | {cells} | {np.mean(list(by_kind.values())):.1%} |")
    gain = designs["difference"]
    lines += [
        "",
        f"Best design per kind {np.mean(designs['oracle']):.1%}, best for all {np.mean(designs['best_fixed']):.1%}: "
        f"{_points(gain['difference'])} points ({_points(gain['low'])} to {_points(gain['high'])}).",
    ]
    return "\n".join(lines)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="work directory of the sweep")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tiny_study.json"))
    args = parser.parse_args()
    try:
        study = collect(args.workdir)
    except FileNotFoundError as error:
        parser.error(str(error))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(study, indent=1) + "\n")
    print(render(study))


if __name__ == "__main__":
    main()
