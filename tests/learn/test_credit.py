"""Claims about the way from trees to advantages."""

from __future__ import annotations

import numpy as np
import pytest

from metaagentx.learn.advantage import advantages
from metaagentx.learn.credit import assign
from metaagentx.learn.options import CreditOptions
from metaagentx.rollout.trajectory import DesignRollout, Execution, Tree
from metaagentx.tasks.task import Question
from metaagentx.workflow.ir import Diagnosis, Refusal
from metaagentx.workflow.protocol import Outcome, RunResult
from tests.learn.examples import trajectory


def execution(reward: float, calls: int = 1, masked: bool = False) -> Execution:
    trajectories = tuple(trajectory([1, 2], 1, turn=i) for i in range(calls))
    result = RunResult("", None, Outcome.OK)
    return Execution(result, reward, 0.0, 0.0, reward, masked, trajectories)


def design(reward: float, *executions: Execution, masked: bool = False, sampled: bool = True) -> DesignRollout:
    own = trajectory([1, 2], 1, "designer") if sampled else None
    parsed = Diagnosis(Refusal.SYNTAX, "nothing")
    return DesignRollout("", parsed, "", "", reward, Outcome.OK, masked, list(executions), own)


def tree(*designs: DesignRollout) -> Tree:
    return Tree(Question("q", "sum", "?", "mathematics"), list(designs))


def test_each_call_carries_the_advantage_of_its_execution() -> None:
    found = assign([tree(design(0.5, execution(1.0, 3), execution(0.0)), design(0.0))], CreditOptions())
    designer = found.of("designer").advantages
    executor = found.of("executor").advantages
    half = 0.5**0.5
    np.testing.assert_allclose(designer, [half, -half], rtol=1e-4)
    np.testing.assert_allclose(executor, [half, half, half, -half], rtol=1e-4)


def test_an_execution_without_calls_is_a_member_of_its_group_and_leaves_nothing_to_train() -> None:
    trees = [tree(design(0.5, execution(1.0), execution(0.0, calls=0)))]
    assert assign(trees, CreditOptions()).of("executor").advantages == pytest.approx([0.5**0.5], rel=1e-4)
    assert assign(trees, CreditOptions(grouping="per_agent")).of("executor").advantages == [0.0]


def test_what_was_lost_to_our_own_faults_is_no_member_and_not_trained() -> None:
    runs = (execution(1.0), execution(0.0), execution(-50.0, 2, masked=True))
    found = assign([tree(design(0.5, *runs), design(-9.0, masked=True))], CreditOptions())
    assert len(found.trajectories) == len(found.advantages) == 3
    np.testing.assert_allclose(found.of("executor").advantages, [0.5**0.5, -(0.5**0.5)], rtol=1e-4)
    assert found.metrics["masked"] == pytest.approx(3 / 6)
    assert found.metrics["reward/executor"] == pytest.approx(0.5)
    assert found.metrics["reward/designer"] == pytest.approx(0.5)


def test_metrics_count_groups_that_settle_nothing() -> None:
    settled = tree(design(1.0, execution(1.0), execution(1.0), sampled=False))
    split = tree(design(0.5, execution(1.0), execution(0.0)))
    metrics = assign([settled, split], CreditOptions()).metrics
    # Two designer groups of one, one executor group of equals, one executor group that differs.
    assert metrics["groups"] == 4
    assert metrics["groups_single"] == pytest.approx(1 / 2)
    assert metrics["groups_equal"] == pytest.approx(1 / 4)
    assert metrics["advantage_nonzero"] == pytest.approx(2 / 5)


@pytest.mark.parametrize(("grouping", "programs"), [("metaagent_x", 1), ("per_agent", 2)])
def test_agents_and_turns_compile_the_kernel_anew_only_where_they_make_groups(grouping: str, programs: int) -> None:
    advantages.clear_cache()
    for calls in (1, 5):
        named = execution(1.0)
        named.trajectories = tuple(trajectory([1, 2], 1, agent=f"agent {i}", turn=i) for i in range(calls))
        assign([tree(design(0.5, named, execution(0.0)))], CreditOptions(grouping=grouping))
    assert advantages._cache_size() == programs


def test_no_trees_give_no_advantages() -> None:
    found = assign([], CreditOptions())
    assert found.trajectories == []
    assert found.advantages.shape == (0,)
