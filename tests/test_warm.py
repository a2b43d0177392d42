"""A run compiles at its start, and never again: rollouts, updates of both phases, evaluations."""

from __future__ import annotations

import pytest

from metaagentx import memory, policies
from metaagentx.evaluate import validate
from metaagentx.pipeline import Pipeline
from metaagentx.rollout.compilation import count_compilations
from metaagentx.sections import SettingsError
from metaagentx.step import Place, one_step
from metaagentx.train import train
from metaagentx.workbench import open_workbench
from tests.test_train import lines, small


@pytest.mark.parametrize(
    ("layout", "updates"),
    [
        ("shared", 1),
        pytest.param("shared", 2, marks=pytest.mark.slow),
        pytest.param("adapters", 1, marks=pytest.mark.slow),
    ],
)
def test_after_its_start_a_run_compiles_nothing(layout: str, updates: int) -> None:
    """Steps bring other questions, designs, lengths and numbers of calls. Of the first two, only credit is new."""
    options = {"cold_start__steps": 0, "train__questions": 3, "tree__w_format": 1.0, "policies__lora__rank": 2}
    settings = small(policies__layout=layout, train__updates=updates, **options)
    with open_workbench(settings) as bench:
        weights = bench.fresh_weights()
        states, base = policies.states(weights, settings), weights.base
        pipeline = Pipeline(0, bench.way).after(0, policies.acting(states, base))
        engines = bench.engines(*pipeline.newest)
        found = bench.prepare(engines, states, base)
        assert found["memory/update"] + found.get("memory/sampling", 0) > 0
        assert found["memory/total"] < found["memory/limit"]

        with count_compilations() as evaluating:
            validate(bench, engines, 0)
        assert evaluating.count == 0

        def steps(numbers: range) -> None:
            nonlocal states, pipeline
            for step in numbers:
                states, pipeline, done = one_step(bench, engines, states, base, pipeline, Place(step, 3 * step))
                done.metrics(settings.train.gap_bound)
                bench.load(engines, *pipeline.newest)
                validate(bench, engines, step)

        with count_compilations() as first:
            steps(range(2))
        with count_compilations() as later:
            steps(range(2, 6))
    assert first.count <= 1
    assert later.count == 0


def test_a_batch_larger_than_any_bucket_is_computed_and_what_it_compiled_is_on_record(tmp_path) -> None:
    """For its entropy a designer learns from every reply, good or bad."""
    rows = {"pack__row_buckets": (1,), "pack__micro_rows": 1, "train__questions": 8}
    options = rows | {"roles__designer__entropy": 0.01, "stages__first": "designer"}
    train(small(cold_start__steps=0, train__steps=1, evaluate__final=False, **options), tmp_path)
    step = lines(tmp_path)[-1]
    assert step["train/designer/tokens"] > 0
    assert step["update/compilations"] > 0


def test_what_does_not_fit_is_refused_before_questions_are_asked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "limit", lambda mesh: 100_000.0)
    with pytest.raises(SettingsError, match=r"needs .* of a device's memory, and there are 100 kB: .*config\."):
        train(small(), tmp_path)
    assert not (tmp_path / "cold_start").exists()


def test_the_record_of_a_run_begins_with_what_its_devices_hold(tmp_path) -> None:
    train(small(cold_start__steps=0, train__steps=0, evaluate__final=False), tmp_path)
    (start,) = lines(tmp_path)
    assert start["memory/weights"] > 0
    assert start["memory/total"] == sum(
        value
        for name, value in start.items()
        if name.startswith("memory/") and name.split("/")[1] not in ("total", "limit")
    )
