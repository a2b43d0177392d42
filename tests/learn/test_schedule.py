"""Claims about what trains when."""

from __future__ import annotations

import pytest

from metaagentx.learn.options import StageOptions
from metaagentx.learn.schedule import check, phase, phases

ROLES = ("designer", "executor")


def test_stagewise_alternates_executor_first_every_length_steps() -> None:
    names = [phase(StageOptions(length=3), ROLES, step).name for step in range(9)]
    assert names == ["executor"] * 3 + ["designer"] * 3 + ["executor"] * 3
    assert phase(StageOptions(length=3, first="designer"), ROLES, 0).name == "designer"


@pytest.mark.parametrize(
    ("options", "scales"),
    [
        (StageOptions(), {"designer": 0.0, "executor": 1.0}),
        (StageOptions(freeze="soft", soft_scale=0.25), {"designer": 0.25, "executor": 1.0}),
        (StageOptions(mode="joint"), {"designer": 1.0, "executor": 1.0}),
        (StageOptions(mode="designer_only"), {"designer": 1.0, "executor": 0.0}),
        (StageOptions(mode="executor_only"), {"designer": 0.0, "executor": 1.0}),
        (StageOptions(mode="none", freeze="soft"), {"designer": 0.0, "executor": 0.0}),
    ],
)
def test_each_mode_scales_the_roles_as_named(options: StageOptions, scales: dict[str, float]) -> None:
    assert phase(options, ROLES, 7).trains == scales


def test_three_roles_take_turns_from_the_first() -> None:
    roles = ("main", "solver", "writer")
    names = [phase(StageOptions(length=2, first="solver"), roles, step).name for step in range(8)]
    assert names == ["solver"] * 2 + ["writer"] * 2 + ["main"] * 2 + ["solver"] * 2
    assert [each.name for each in phases(StageOptions(length=2), roles)] == ["writer", "main", "solver"]
    assert [each.name for each in phases(StageOptions(mode="joint"), roles)] == ["joint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (StageOptions(mode="main_only"), r"stages.mode must be one of .*'none', 'designer_only', 'executor_only', not"),
        (StageOptions(first="main"), "stages.first must be one of 'designer', 'executor', not 'main'"),
    ],
)
def test_a_role_that_a_run_does_not_have_is_refused(options: StageOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(options, ROLES)
