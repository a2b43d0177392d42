"""A team's road through the same trainer: both roles learn, a run resumes bit for bit, and its report tells of it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tiny_team
from metaagentx import evaluate, solve
from metaagentx.settings import Settings, read
from metaagentx.train import train
from metaagentx.workbench import open_workbench
from tests.changed import changed
from tests.test_train import MODEL

STEPS = 2
OVERRIDES = MODEL | {
    "data.directory": tempfile.mkdtemp(prefix="metaagentx-tests-"),
    "task.compound.pool": 40,
    "task.compound.train": 12,
    "task.compound.validation": 2,
    "task.compound.test": 2,
    "task.compound.parts": (1, 2),
    "engine.slots": 16,
    "engine.prompt_buckets": (128,),
    "engine.capacity_buckets": (),
    "engine.admit_buckets": (16,),
    "team.rollouts": 3,
    "pack.row_buckets": (32,),
    "cold_start.steps": 60,
    "cold_start.batch": 32,
    "cold_start.demonstrations": 300,
    "cold_start.log_every": 30,
    "cold_start.optimizer.warmup_steps": 0,
    "cold_start.optimizer.decay_steps": 0,
    "train.steps": STEPS,
    "train.questions": 2,
    "train.curriculum": {"steps": 1, "kinds": ("one",)},
    "train.evaluate_every": 2,
    "train.checkpoint_every": 1,
    "evaluate.questions": 2,
    "evaluate.validation_questions": 2,
    "evaluate.designs": 1,
    "roles.main.entropy": 0.01,  # so that equal rewards teach something
}


def small(variant: str = "team", **more) -> Settings:
    entropy = {} if variant == "single" else {"roles.sub.entropy": 0.01}
    values = entropy | OVERRIDES | {key.replace("__", "."): value for key, value in more.items()}
    return changed(read(tiny_team.get_config(variant)), values)


def test_what_one_test_asks_for_is_not_asked_for_by_the_next():
    """Curricula are sections in a section: whoever wrote to the shared one chose the questions of every later run."""
    before = small()
    assert small(train__curriculum__steps=0, train__curriculum__kinds=()) != before
    assert small() == before


def lines(workdir: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("team")
    train(small(), workdir)
    return workdir


def steps(workdir: Path) -> list[dict]:
    """The steps of training, without their clocks."""
    ignored = ("time", "second", "compilations")
    found = [line for line in lines(workdir, "metrics.jsonl") if line["phase"] in ("joint", "main", "sub")]
    return [{k: v for k, v in line.items() if not any(word in k for word in ignored)} for line in found]


def bits(workdir: Path) -> dict:
    return json.loads((workdir / "checkpoints" / str(STEPS) / "record" / "metadata").read_text())


@pytest.mark.slow
def test_every_step_tells_of_both_roles(finished):
    first, second = steps(finished)
    for line in (first, second):
        assert line["team/errands"] > 0
        assert line["train/main/tokens"] > 0
        assert line["train/sub/tokens"] > 0
        assert line["credit/sub/places"] >= 1
        assert 0 <= line["credit/sub/reward"] <= 1
        assert line["rollout/sub/trajectories"] == pytest.approx(line["team/errands"] * 6)  # 2 questions, 3 rollouts
    kinds = [name for name in first if name.startswith("rollout/accuracy/")]
    assert kinds == ["rollout/accuracy/one"]  # the curriculum
    assert first["train/tokens"] == first["rollout/generated_tokens"]


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_same_bits_and_the_same_places(finished, tmp_path):
    """Of the alignment, too: what it goes by is in the checkpoint."""
    shutil.copytree(finished, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / str(STEPS))
    train(small(), tmp_path / "resumed")
    assert steps(tmp_path / "resumed") == steps(finished)
    ours, theirs = bits(tmp_path / "resumed"), bits(finished)
    assert ours["bit_sums"] == theirs["bit_sums"]
    assert ours["record"]["place"] == theirs["record"]["place"]
    assert len(theirs["record"]["place"]["sizes"]["sub"]) == 2 * 2 * 3


@pytest.mark.slow
def test_what_is_written_of_a_team_is_of_its_agents(finished):
    results = json.loads((finished / "results.json").read_text())
    assert [row["arm"] for row in results["table"]] == ["cold/cold", "cold/trained", "trained/cold", "trained/trained"]
    assert set(results["crossplay"]) == {row["arm"] for row in results["table"]}
    assert all(row["tokens_per_question"] > 0 for row in results["table"])
    episode = lines(finished, "episodes.jsonl")[0]
    assert len(episode["rollouts"]) == 3
    assert any(rollout["errands"] for rollout in episode["rollouts"])
    shown = (finished / "report.html").read_text()
    assert "Rollout 3" in shown
    assert "trained sub-agents" in shown
    assert "Answer: " in solve.solve(small(), finished)


@pytest.mark.parametrize("trains", ["main", pytest.param("sub", marks=pytest.mark.slow)])
def test_a_frozen_role_keeps_its_bits(trains, tmp_path):
    steps = {"cold_start__steps": 0, "train__steps": 1, "evaluate__final": False}
    settings = small(stages__mode=f"{trains}_only", **steps)
    train(settings, tmp_path)
    with open_workbench(settings) as bench:
        fresh, trained = bench.fresh_weights().full, evaluate.newest(bench, tmp_path).full
    moved = {role: not same(fresh[role], trained[role]) for role in ("main", "sub")}
    assert moved == {role: role == trains for role in ("main", "sub")}


@pytest.mark.parametrize(
    "more",
    [
        {"policies__layout": "shared"},
        pytest.param({"policies__layout": "adapters", "policies__lora__rank": 2}, marks=pytest.mark.slow),
        pytest.param({"generation__devices": 1}, marks=pytest.mark.slow),
        pytest.param({"train__updates": 2, "stages__moments": "shared"}, marks=pytest.mark.slow),
    ],
)
def test_a_team_trains_in_every_layout(more, tmp_path):
    train(small(**more, cold_start__steps=0, train__steps=1, train__questions=16, evaluate__final=False), tmp_path)
    (step,) = steps(tmp_path)
    for role in ("main", "sub"):
        assert step[f"train/{role}/tokens"] > 0
        assert step[f"train/{role}/gap_mean"] < 1e-4


@pytest.mark.slow
def test_an_agent_on_its_own_is_compared_with_its_majority_at_the_tokens_asked_for(tmp_path):
    settings = small("single", train__steps=1, evaluate__vote_tokens=100)
    results = train(settings, tmp_path)
    rows = {row["arm"]: row for row in results["table"]}
    assert list(rows) == ["cold/cold", "trained/trained", "vote/cold", "vote/trained"]
    assert results["crossplay"] == {}
    for weights in ("cold", "trained"):
        assert rows[f"vote/{weights}"]["tokens_per_question"] > rows[f"{weights}/{weights}"]["tokens_per_question"]


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
