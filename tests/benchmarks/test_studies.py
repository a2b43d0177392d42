"""The tables of a study, from made-up work directories."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import study, team_study
from configs import tiny_team, tiny_team_study
from launch.sweep import jobs, load

QUESTIONS = 40
ACCURACY = {"cold_start": 0.2, "team": 0.7, "frozen_sub": 0.4, "single": 0.3}
NAMES = (study.SYSTEM, "vote/trained", "trained/cold", "cold/trained")


def write(folder, accuracy, seed):
    """One finished run."""
    folder.mkdir(parents=True)
    right = np.random.default_rng(seed).random((QUESTIONS, 4)) < accuracy
    grades = {f"{name}:correct": right.astype(np.float32) for name in NAMES}
    np.savez(folder / "scores.npz", **grades, **{f"{name}:tokens": np.full((QUESTIONS, 4), 50.0) for name in NAMES})
    table = [{"arm": name, "by_kind": {"one": accuracy, "two": accuracy / 2}} for name in NAMES]
    found = {"train_tokens": 1000, "device": "cpu", "versions": {}, "table": table}
    (folder / "results.json").write_text(json.dumps(found))
    times = (1e9 + seed, 1e9 + 10 * seed + 7)  # 2001-09-09
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": 1, "phase": "p", "time": t}) + "\n" for t in times)
    )


@pytest.fixture
def workdir(tmp_path):
    for arm, accuracy in ACCURACY.items():
        for seed in range(3):
            write(tmp_path / f"{arm}-{seed}", accuracy, seed)
    return tmp_path


def test_contrasts_are_paired_and_hold_the_difference(workdir):
    found = team_study.collect(workdir)
    gap = found["contrasts"]["team - frozen_sub"]
    assert gap["low"] < gap["difference"] < gap["high"]
    assert gap["difference"] == pytest.approx(0.3, abs=0.1)
    assert gap["low"] > 0.15
    assert found["by_kind"]["team"] == pytest.approx({"one": 0.7, "two": 0.35})


def test_a_study_says_when_it_was_run_from_what_and_how_long_each_job_took(workdir):
    found = team_study.collect(workdir)
    assert found["seconds"] == {job: {"mean": 16.0, "by_seed": [7.0, 16.0, 25.0]} for job in ACCURACY}
    assert found["date"] == "2001-09-09T01:47:07+00:00"
    assert found["command"].startswith("python -m benchmarks.")
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40


def test_tables_name_every_arm_and_contrast(workdir):
    text = team_study.render(team_study.collect(workdir))
    for name in (*ACCURACY, "single_majority", "team - single", "team - single_majority"):
        assert f"| {name} |" in text


def test_a_run_that_is_not_finished_is_named(workdir):
    (workdir / "single-1" / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match="single-1"):
        team_study.collect(workdir)
    with pytest.raises(FileNotFoundError, match="holds no study"):
        team_study.collect(workdir / "single-1")


def test_the_sweep_has_every_arm_of_every_seed_after_its_cold_start(tmp_path):
    made = {job.name: job for job in jobs("x.py", tmp_path, load("configs/tiny_team_study.py"))}
    assert set(made) == {f"{arm}-{seed}" for arm in ACCURACY for seed in tiny_team_study.SEEDS}
    for arm in tiny_team.VARIANTS:
        assert made[f"{arm}-2"].depends_on == ("cold_start-2",)
        assert f"--config=configs/tiny_team_study.py:{arm}" in made[f"{arm}-2"].command
