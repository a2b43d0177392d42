"""Claims about what trains when."""

from __future__ import annotations

import pytest

from metaagentx.learn.options import StageOptions
from metaagentx.learn.schedule import phase


def test_stagewise_alternates_executor_first_every_length_steps() -> None:
    names = [phase(StageOptions(length=3), step).name for step in range(9)]
    assert names == ["executor"] * 3 + ["designer"] * 3 + ["executor"] * 3
    assert phase(StageOptions(length=3, first="designer"), 0).name == "designer"


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
    assert phase(options, 7).trains == scales
