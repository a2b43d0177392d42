"""The tables of the tiny team's study, from the work directories of its runs.

    python -m launch.sweep --config=configs/tiny_team_study.py --workdir=runs/team_study --parallel=2
    python -m benchmarks.team_study runs/team_study

Writes `benchmarks/results/team_study.json` (raw accuracy of every seed, tokens, paired contrasts, accuracy by number of
parts) and prints the tables in Markdown (see `benchmarks.study`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import study
from benchmarks.study import SYSTEM

# arm -> (job whose scores hold it, the arm's name there)
ARMS = {
    "cold_start": ("cold_start", SYSTEM),
    "single": ("single", SYSTEM),
    "single_majority": ("single", "vote/trained"),
    "frozen_sub": ("frozen_sub", SYSTEM),
    "team": ("team", SYSTEM),
    "team_main_agent": ("team", "trained/cold"),  # the trained main agent with cold sub-agents
    "team_sub_agents": ("team", "cold/trained"),
}
CONTRASTS = tuple(("team", arm) for arm in ARMS if arm != "team")


def collect(workdir: Path) -> dict[str, Any]:
    """Everything that the study found.

    Raises FileNotFoundError naming the first run that is not finished.
    """
    seeds = study.seeds_of(workdir)
    correct, arms, by_kind = {}, {}, {}
    for arm, (job, name) in ARMS.items():
        correct[arm], arms[arm] = study.read_arm(workdir, job, name, seeds)
        by_kind[arm] = _by_kind([workdir / f"{job}-{seed}" for seed in seeds], name)
    return {
        "seeds": seeds,
        "questions": int(correct["team"].shape[1]),
        **study.about(workdir, {job: seeds for job, _ in ARMS.values()}),
        "arms": arms,
        "contrasts": study.contrasts(CONTRASTS, correct),
        "by_kind": by_kind,
    }


def _by_kind(folders: list[Path], name: str) -> dict[str, float]:
    """Mean accuracy over seeds on questions of each number of parts."""
    tables = [json.loads((folder / "results.json").read_text())["table"] for folder in folders]
    rows = [next(row["by_kind"] for row in table if row["arm"] == name) for table in tables]
    return {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]}


def render(found: dict[str, Any]) -> str:
    """The study as Markdown tables."""
    kinds = list(found["by_kind"]["team"])
    lines = [*study.render_arms(found), "", f"| arm | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    lines += [
        f"| {arm} | {' | '.join(f'{by_kind[kind]:.1%}' for kind in kinds)} |"
        for arm, by_kind in found["by_kind"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    study.main(__doc__ or "", collect, render, Path("benchmarks/results/team_study.json"))
