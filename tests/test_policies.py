"""Shared, split or adapters: who trains which weights in a run, and what is exported of it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from transformers import AutoTokenizer

from metaagentx import evaluate, policies, sft
from metaagentx.checkpoint import Checkpoints
from metaagentx.export import export, published_base
from metaagentx.learn.credit import Assigned
from metaagentx.learn.schedule import phases
from metaagentx.learn.update import split
from metaagentx.options import PretrainedOptions
from metaagentx.policy import load
from metaagentx.policy.peft_format import load_adapter
from metaagentx.settings import ROLES, Settings
from metaagentx.train import train
from metaagentx.workbench import open_workbench
from tests.learn.examples import trajectory
from tests.test_train import lines, small

MANY_REWARDS = {"tree__fixed_design": "a=solve()", "tree__w_format": 1.0, "tree__executions": 8}


def options(layout: str, **more) -> Settings:
    """Two steps of the executor, whose rewards differ, in one of the layouts."""
    common = {"policies__layout": layout, "policies__lora__rank": 2, "policies__lora__targets": "q|v|gate|down"}
    steps = {"train__steps": 2, "stages__length": 2, "train__evaluate_every": 2, "evaluate__final": False}
    return small(cold_start__steps=4, cold_start__checkpoint_every=4, **common, **steps, **MANY_REWARDS, **more)


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("layout", ["split", "adapters"])
def test_only_the_policy_of_the_training_role_moves(layout, tmp_path):
    settings = options(layout)
    train(settings, tmp_path)
    with open_workbench(settings) as bench:
        cold, trained = sft.finished(bench, tmp_path), evaluate.newest(bench, tmp_path)
        like = policies.states(sft.finished(bench, tmp_path), settings)
        saved, _ = Checkpoints(tmp_path / "checkpoints", keep=1).restore(like)
    assert set(saved) == {"designer", "executor"}  # a frozen base is not saved again and again
    before, after = (cold.adapters, trained.adapters) if layout == "adapters" else (cold.full, trained.full)
    assert same(before["designer"], after["designer"])
    assert not same(before["executor"], after["executor"])
    if layout == "adapters":
        assert same(cold.base, trained.base)


def test_a_cold_start_into_adapters_leaves_the_base_as_it_was(tmp_path):
    settings = options("adapters", cold_start__into="adapters")
    train(settings, tmp_path)
    with open_workbench(settings) as bench:
        fresh, cold = bench.fresh_weights(), sft.finished(bench, tmp_path)
        trained = evaluate.newest(bench, tmp_path)
    assert same(fresh.base, cold.base)
    assert same(fresh.base, trained.base)
    for role in ROLES:
        assert not same(fresh.adapters[role], cold.adapters[role])


@pytest.mark.parametrize("layout", ["shared", "split"])
def test_what_a_step_may_update_with_is_compiled_before(layout):
    """Whatever number of rows its roles have, the shapes are those of one of the programs."""
    settings = options(layout, pack__row_buckets=(8, 16, 32), pack__micro_rows=8, stages__mode="joint")
    with open_workbench(settings) as bench:
        states = policies.states(bench.fresh_weights(), settings)
        ahead = {shapes(arguments[2]) for _, arguments in policies.programs(states, None, settings, bench.compute)}
    (now,) = phases(settings.stages, settings.learners)
    for few, many in ((1, 9), (20, 1), (8, 8)):
        rows = {"designer": few, "executor": many}
        assigned = {
            role: Assigned([trajectory([1] * 64, 1)] * n, np.ones(n, np.float32), {}) for role, n in rows.items()
        }
        batches = policies.batches(assigned, now, settings)
        assert len(ahead) == (3 if layout == "shared" else 6)
        for roles in ([*ROLES],) if layout == "shared" else (["designer"], ["executor"]):
            assert shapes({role: split(batches[role], 8) for role in roles}) in ahead


def shapes(batches) -> tuple:
    return tuple((role, batch.tokens.shape) for role, batch in sorted(batches.items()))


@pytest.mark.slow
def test_a_run_that_shares_prompts_takes_the_same_step(tmp_path):
    found = []
    for length in (0, 24):
        settings = small(
            cold_start__steps=0, train__steps=1, evaluate__final=False, pack__attention="auto",
            pack__prompt_length=length, pack__chunk=8, **MANY_REWARDS,
        )  # fmt: skip
        train(settings, tmp_path / str(length))
        (step,) = (line for line in lines(tmp_path / str(length)) if line["phase"] == "executor")
        found.append([step[f"train/executor/{name}"] for name in ("tokens", "loss", "gradient_norm", "entropy")])
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_the_order_in_which_a_config_names_roles_changes_nothing(tmp_path):
    """Its sections per role, that is; adapters have random numbers of their own, biases a table."""
    settings = options("adapters", sampling__executor__bias=[["1", 1.0]])
    turned = dataclasses.replace(
        settings,
        sampling=dict(reversed(settings.sampling.items())),
        roles=dict(reversed(settings.roles.items())),
    )
    assert list(turned.sampling) != list(settings.sampling)
    found = []
    for name, each in (("as_is", settings), ("turned", turned)):
        train(each, tmp_path / name)
        with open_workbench(each) as bench:
            found.append(evaluate.newest(bench, tmp_path / name))
    assert same(*found)


@pytest.mark.parametrize(
    ("layout", "merged", "expected"),
    [
        ("shared", False, {""}),
        ("split", False, {"designer", "executor"}),
        ("adapters", False, {"base", "designer", "executor"}),
        ("adapters", True, {"designer", "executor"}),
    ],
)
def test_what_is_exported_is_read_back_the_same(layout, merged, expected, tmp_path):
    settings = options(layout)
    with open_workbench(settings) as bench:
        weights = bench.fresh_weights()
        written = export(bench, weights, tmp_path / "out", merged=merged)
        assert {str(path.relative_to(tmp_path / "out")).strip(".") for path in written} == expected
        for path in written:
            if (path / "adapter_config.json").exists():
                adapter, lora = load_adapter(path, bench.model, bench.mesh)
                assert same(adapter, weights.adapters[path.name])
                assert lora.rank == 2
            else:
                assert same(load.load(path, bench.model, bench.mesh), next(iter(weights.full.values())))
                spoken = AutoTokenizer.from_pretrained(path)
                assert spoken.encode("Solve.\\boxed{3}") == bench.chat.tokenizer.encode("Solve.\\boxed{3}")


def test_adapters_name_a_base_only_where_peft_can_read_it(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "model.gguf").touch()

    def base(name: str, into: str) -> str:
        pretrained = PretrainedOptions(path=str(tmp_path / name))
        return published_base(
            dataclasses.replace(options("adapters", cold_start__into=into), model=None, pretrained=pretrained)
        )

    assert base("published", "adapters") == str(tmp_path / "published")
    assert base("model.gguf", "adapters") == ""
    assert base("published", "weights") == ""  # the cold start moved it
