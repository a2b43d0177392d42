"""Sampling on devices of its own: the same run where it waits for every update, the one said where it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from metaagentx import evaluate, pipeline, policies
from metaagentx.checkpoint import Checkpoints
from metaagentx.pipeline import Pipeline
from metaagentx.policies import Weights
from metaagentx.settings import Settings, SettingsError
from metaagentx.train import train
from metaagentx.transfer import layout, regroup
from metaagentx.workbench import open_workbench
from tests.test_train import small

STEPS = 5
REWARDS = {"tree__fixed_design": "a=solve()", "tree__w_format": 1.0, "tree__executions": 8}
SPLIT = {"mesh__data": 1, "mesh__fsdp": 2, "mesh__tensor": 2, "generation__devices": 4, "generation__tensor": 2}


def options(**more) -> Settings:
    """A few steps of the executor, whose rewards differ."""
    given = {
        "model__kv_heads": 2,
        "cold_start__steps": 0,
        "stages__mode": "executor_only",
        "roles__executor__optimizer__learning_rate": 1e-3,
        "train__steps": STEPS,
        "train__evaluate_every": STEPS,
        "train__checkpoint_every": STEPS,
        "evaluate__final": False,
    }
    return small(**given | REWARDS | more)


def lines(workdir: Path) -> list[dict]:
    """The steps of a run, without its clocks."""
    ignored = ("time", "second", "compilations")
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not any(word in k for word in ignored)} for line in found if line["step"]]


def weights(settings: Settings, workdir: Path) -> list[np.ndarray]:
    with open_workbench(settings) as bench:
        return jax.device_get(jax.tree.leaves(evaluate.newest(bench, workdir)))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The run on devices that do both."""
    workdir = tmp_path_factory.mktemp("together")
    train(options(), workdir)
    return workdir


def test_a_sampler_that_waits_for_every_update_trains_as_one_mesh_does(together, tmp_path):
    settings = options(**SPLIT)
    train(settings, tmp_path)
    for ours, theirs in zip(lines(tmp_path), lines(together), strict=True):
        for name in ("rollout/generated_tokens", "rollout/reward", "train/executor/tokens", "eval/accuracy"):
            assert ours.get(name) == theirs.get(name)
        assert ours["train/staleness_max"] == 0
        assert ours["train/executor/gap_mean"] < 1e-4
    for a, b in zip(weights(settings, tmp_path), weights(options(), together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
