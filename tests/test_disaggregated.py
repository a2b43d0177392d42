"""Sampling on devices of its own: the same run where it waits for every update, the one said where it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from metaagentx import evaluate
from metaagentx.pipeline import Pipeline
from metaagentx.policies import Weights
from metaagentx.sections import SettingsError
from metaagentx.settings import Settings
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
        "cold_start__steps": 4,
        "cold_start__checkpoint_every": 4,
        "stages__mode": "executor_only",
        "roles__executor__optimizer__learning_rate": 1e-3,
        "train__steps": STEPS,
        "train__evaluate_every": STEPS,
        "train__checkpoint_every": STEPS,
        "evaluate__final": False,
    }
    return small(**given | REWARDS | more)


def lines(workdir: Path) -> list[dict]:
    """The steps of training, without their clocks."""
    ignored = ("time", "second", "compilations")
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in found if line["phase"] == "executor"]
    return [{k: v for k, v in line.items() if not any(word in k for word in ignored)} for line in found]


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
    assert any(line["credit/advantage_nonzero"] for line in lines(together))
    for a, b in zip(weights(settings, tmp_path), weights(options(), together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("staleness", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_staleness_is_what_was_asked_for_and_older_weights_are_no_gap(staleness, together, tmp_path):
    train(options(**SPLIT, generation__staleness=staleness), tmp_path)
    found = lines(tmp_path)
    assert [line["train/staleness_max"] for line in found] == [min(n, staleness) for n in range(STEPS)]
    assert [line["train/staleness_mean"] for line in found] == [min(n, staleness) for n in range(STEPS)]
    for line in found:
        stale = bool(line["train/staleness_max"])
        assert ("train/executor/gap_mean" in line, "train/executor/drift_mean" in line) == (not stale, stale)
        assert not stale or line["train/executor/drift_mean"] > 1e-4  # the updates moved them
    assert found[0]["rollout/reward"] == lines(together)[0]["rollout/reward"]


@pytest.mark.parametrize(
    "layout", ["adapters", *(pytest.param(x, marks=pytest.mark.slow) for x in ("shared", "split"))]
)
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(layout, tmp_path):
    lora = {"policies__layout": layout, "policies__lora__rank": 2, "policies__lora__targets": "q|v|gate|down"}
    steps = {"train__checkpoint_every": 3, "train__keep": 3, "generation__staleness": 2}
    settings = options(**SPLIT, **lora, **steps)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(settings, whole)
    assert [line["train/staleness_max"] for line in lines(whole)] == [0, 1, 2, 0, 1]  # saved after three
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / str(STEPS))
    train(settings, resumed)
    assert lines(resumed) == lines(whole)
    assert any(line.get("train/executor/drift_mean", 0) > 1e-4 for line in lines(whole))
    sums = [
        json.loads((run / "checkpoints" / str(STEPS) / "record" / "metadata").read_text())["bit_sums"]
        for run in (whole, resumed)
    ]
    assert sums[0] == sums[1]


def snapshot(number: int) -> Weights:
    return Weights({"shared": {"w": jax.numpy.full(2, float(number))}}, {})


class Copying:
    """A way that copies, and frees what it copied."""

    def bring(self, weights: Weights) -> Weights:
        return jax.tree.map(jax.numpy.copy, weights)

    def free(self, weights: Weights) -> None:
        jax.tree.map(lambda x: x.delete(), weights)


def test_a_pipeline_holds_what_rollouts_will_read_and_frees_the_rest_first():
    kept, seen = Pipeline(2, Copying()), []
    for step in range(5):
        if step == 3:
            kept = kept.drained()
        kept = kept.after(step, snapshot(step))
        seen.append(kept)
        assert not any(x.is_deleted() for x in jax.tree.leaves([s.weights for s in kept.snapshots]))
    assert [p.oldest.version for p in seen] == [0, 0, 0, 2, 2]
    assert [p.newest.version for p in seen] == [0, 1, 2, 3, 4]
    assert [len(p.snapshots) for p in seen] == [1, 2, 3, 2, 3]
    held = {id(s.weights): s for p in seen for s in p.snapshots}.values()
    assert sorted(s.version for s in held if jax.tree.leaves(s.weights)[0].is_deleted()) == [0, 1]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_every_piece_of_the_weights_lies_on_a_training_device_before_it_moves(tensor, lora):
    """So that no array is put together on a host on its way, whatever the two meshes."""
    with open_workbench(options(**SPLIT | {"generation__tensor": tensor, "policies__layout": "adapters"})) as bench:
        between = regroup(bench.mesh, tensor)
        shape = bench.lora if lora else None
        shapes = jax.tree.leaves(bench.first_params() if not lora else bench.fresh_weights().adapters["designer"])
        pairs = zip(*(jax.tree.leaves(layout(bench.model, shape, m)) for m in (between, bench.way.target)), strict=True)
        cut = 0
        for array, (source, target) in zip(shapes, pairs, strict=True):
            here, there = (s.devices_indices_map(array.shape) for s in (source, target))
            assert set(map(str, there.values())) <= set(map(str, here.values()))
            cut += not target.is_fully_replicated
        assert bool(cut) == (tensor > 1)


def test_a_frozen_base_crosses_once_and_what_trains_is_freed(tmp_path):
    with open_workbench(options(**SPLIT, policies__layout="adapters")) as bench:
        weights = bench.fresh_weights()
        first, second = bench.way.bring(weights), bench.way.bring(weights)
        assert first.base is second.base
        assert first.adapters["designer"] is not second.adapters["designer"]
        again = bench.way.bring(first)  # as an engine that is made of them has them brought
        assert again.adapters == first.adapters
        assert again.base is first.base
        assert bench.way.bring(weights).base is first.base
        target = set(bench.way.target.devices.flat)
        for before, after in zip(jax.tree.leaves(weights), jax.tree.leaves(first), strict=True):
            assert after.sharding.device_set == target
            np.testing.assert_array_equal(before, after)
        bench.way.free(second)
        assert all(x.is_deleted() for x in jax.tree.leaves(second.adapters))
        assert not any(x.is_deleted() for x in jax.tree.leaves(first))


@pytest.mark.parametrize("fsdp", [1, 2])
def test_a_single_process_that_samples_its_own_questions_frees_no_weights_that_train(fsdp):
    with open_workbench(options(generation__per_host=True, mesh__fsdp=fsdp)) as bench:
        weights = bench.fresh_weights()
        brought = bench.way.bring(weights)
        bench.way.free(brought)
        assert not any(x.is_deleted() for x in jax.tree.leaves(weights))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"generation__staleness": 1}, "generation.staleness is of devices set apart: give generation.devices"),
        ({"generation__tensor": 2}, "generation.tensor wants generation.devices or generation.per_host"),
        ({"generation__devices": 1, "generation__per_host": True}, "generation.devices are of a single process"),
        ({"generation__devices": -1}, "generation.devices and generation.staleness must be 0 or above"),
        (
            {"generation__devices": 3, "generation__tensor": 2},
            r"generation.tensor \(2\) must divide generation.devices",
        ),
        (
            {"generation__devices": 1, "generation__staleness": 1, "loss__importance_cap": 0.0},
            r"generation.staleness \(1\) wants loss.importance_cap above 0",
        ),
        ({"generation__devices": 8}, r"generation.devices \(8\) leaves none of 8 to train on"),
        ({"generation__devices": 4, "mesh__fsdp": 8}, "does not fit 4 devices"),
        ({"generation__devices": 6, "generation__tensor": 3}, r"generation.tensor \(3\) must divide the 2 devices"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(given, expected):
    with pytest.raises(SettingsError, match=expected), open_workbench(options(**given)):
        pass
