"""A step whose sampler and trainer do not agree, or that says nothing of it, is the last one."""

from __future__ import annotations

import math

import pytest

from metaagentx.learn.schedule import Phase
from metaagentx.step import told

PHASE = Phase("executor", {"designer": 0.0, "executor": 1.0})


def tell(gap: float, exceeded: float, age: float = 0.0) -> dict[str, float]:
    measured = {"executor/gap_mean": gap, "executor/gap_exceeded": exceeded, "executor/loss": 0.5}
    return told(measured, {"time/update": 1.0, "train/staleness_max": age}, PHASE, step=3, gap_bound=0.05)


@pytest.mark.parametrize("gap", [0.1, math.nan])
def test_a_gap_above_the_bound_stops_the_run_and_names_role_step_and_gap(gap: float) -> None:
    with pytest.raises(RuntimeError, match=rf"step 3: .* the executor's .* by {gap:.4f} on average, above .*0\.05"):
        tell(gap, exceeded=1.0)


def test_a_gap_within_the_bound_is_a_metric_like_any_other() -> None:
    found = tell(0.01, exceeded=0.0)
    assert found["train/executor/gap_mean"] == 0.01
    assert found["time/update"] > 1.0


def test_the_distance_of_older_weights_is_a_drift_that_stops_nothing() -> None:
    found = tell(0.1, exceeded=1.0, age=1.0)
    assert found["train/executor/drift_mean"] == 0.1
    assert not [name for name in found if "gap" in name or name.endswith("exceeded")]
