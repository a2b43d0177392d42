"""A team's road through the same trainer: both roles learn, a run resumes bit for bit, and its report tells of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tiny_team
from metaagentx import evaluate, solve
from metaagentx.sections import plain
from metaagentx.settings import Settings, read
from metaagentx.train import train
from metaagentx.workbench import open_workbench

STEPS = 2
OVERRIDES = {
    "data.directory": tempfile.mkdtemp(prefix="metaagentx-tests-"),
    "model.layers": 1,
    "model.d_model": 32,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.head_dim": 16,
    "model.d_ff": 32,
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
    "train.curriculum.steps": 1,
    "train.evaluate_every": 2,
    "train.checkpoint_every": 1,
    "evaluate.questions": 2,
    "evaluate.validation_questions": 2,
    "evaluate.designs": 1,
}


def small(variant: str = "team", **more) -> Settings:
    config = plain(read(tiny_team.get_config(variant)))
    for key, value in (OVERRIDES | {key.replace("__", "."): value for key, value in more.items()}).items():
        *path, last = key.split(".")
        section = config
        for name in path:
            section = section[name]
        section[last] = value
    return read(config)


def lines(workdir: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("team")
    train(small(), workdir)
    return workdir


def test_every_step_tells_of_both_roles(finished):
    steps = [line for line in lines(finished, "metrics.jsonl") if line["phase"] == "joint"]
    assert [line["step"] for line in steps] == [1, 2]
    print(steps[0])
