"""The whole road in small: reasoning-gym questions, a real tokenizer, a random policy."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from metaagentx.policy.chat import Chat
from metaagentx.policy.params import initialise
from metaagentx.policy.tokenizer import build
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.language import Language
from metaagentx.rollout.options import EngineOptions, SamplingOptions, TreeOptions
from metaagentx.rollout.sample import sample
from metaagentx.rollout.shape import shape
from metaagentx.tasks.gym import GymOptions
from metaagentx.tasks.gym_task import tiny_task
from metaagentx.tasks.palette import TINY_PALETTE
from metaagentx.tasks.pieces import tiny_pieces
from metaagentx.tasks.teacher import TeacherOptions
from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.ir import Design, Limits
from metaagentx.workflow.prompts import Wording

SAMPLING = {"designer": SamplingOptions(max_tokens=6), "executor": SamplingOptions(max_tokens=5)}


@pytest.fixture(scope="module")
def chat():
    return Chat(build(tiny_pieces(), "", 64))


@pytest.fixture(scope="module")
def world(tmp_path_factory, chat, config):
    """(task, engine, chat, toolbox, language), ready to sample."""
    task = tiny_task(GymOptions(train=20, validation=2, test=2), tmp_path_factory.mktemp("data"), TeacherOptions())
    toolbox = Toolbox([make_calculator()])
    config = dataclasses.replace(config, vocab_size=len(chat.tokenizer))
    engine = Engine(config, EngineOptions(16, 64, (64,), (16,), 4), (chat.end,))
    engine.load(initialise(config, jax.random.key(0)), 3)
    engine.warmup()
    return task, engine, chat, toolbox, Language(TINY_PALETTE, toolbox.names(), Limits(), Wording(), {})


def roll(world, options, count=4, seed=0, step=0):
    task, engine, chat, toolbox, language = world
    questions = [task.question("train", index, seed=1) for index in range(count)]
    engines = {"designer": engine, "executor": engine}
    return sample(
        task, questions, engines, chat, toolbox, language, options, SAMPLING, seed=seed, step=step
    )  # fmt: skip


@pytest.mark.parametrize("fixed", ["a=solve()x3", "a=solve();b=solve({a} - 7)", "a=tool()"])
def test_rows_join_their_executions_by_id(world, fixed):
    rollout = roll(world, TreeOptions(designs=2, executions=2, fixed_design=fixed))
    joined = 0
    for q, tree in enumerate(rollout.trees):
        for d, design in enumerate(tree.designs):
            assert design.valid
            for e, execution in enumerate(design.executions):
                rows = execution.trajectories
                assert {(row.question, row.design, row.execution) for row in rows} == {(q, d, e)}
                assert sum(row.generated for row in rows) == execution.result.tokens
                joined += len(rows)
    assert joined == len(rollout.trajectories) > 0
    assert rollout.metrics["rollout/compilations"] == 0
    assert rollout.metrics["rollout/generated_tokens"] == sum(row.generated for row in rollout.trajectories)


def test_sampled_designs_are_kept_with_what_became_of_them(world):
    rollout = roll(world, TreeOptions(designs=4, executions=2, w_invalid=0.2))
    for tree in rollout.trees:
        for design in tree.designs:
            assert design.trajectory.role == "designer"
            assert design.trajectory.version == 3
            if not design.valid:
                assert (design.reward, design.executions) == (-0.2, [])
    valid = np.mean([isinstance(design.parsed, Design) for tree in rollout.trees for design in tree.designs])
    assert rollout.metrics["rollout/valid"] == valid
    refused = sum(value for name, value in rollout.metrics.items() if name.startswith("rollout/refused/"))
    assert refused + valid == pytest.approx(1.0)


def test_a_rollout_is_a_function_of_weights_seed_and_step(world):
    options = TreeOptions(designs=2, executions=2, fixed_design="a=solve()x3")
    first, again, other = roll(world, options), roll(world, options), roll(world, options, step=1)
    for a, b in zip(first.trajectories, again.trajectories, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
    assert any(
        not np.array_equal(a.tokens, b.tokens) for a, b in zip(first.trajectories, other.trajectories, strict=True)
    )


def test_a_prompt_shared_by_many_calls_is_prefilled_once(world):
    world[1].load(initialise(world[1].config, jax.random.key(0)), 3)
    rollout = roll(world, TreeOptions(designs=4, executions=4, fixed_design="a=solve()"), count=1)
    assert rollout.metrics["engine/prompt_tokens"] == 16 * rollout.metrics["engine/prefilled_tokens"]


def test_accuracy_is_reported_for_each_kind(world):
    metrics = roll(world, TreeOptions(designs=1, executions=1, fixed_design="a=solve()"), count=8).metrics
    kinds = {name for name in metrics if name.startswith("rollout/accuracy/")}
    assert kinds == {f"rollout/accuracy/{world[0].question('train', i, seed=1).kind}" for i in range(8)}
    assert metrics["rollout/shape/single"] == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=solve()", "single"),
        ("a=solve()x3", "vote"),
        ("a=solve();b=solve({a} - 7)", "chain"),
        ("a=solve(4 - 1);b=solve({a} - 7)x3", "chain+vote"),
        ("a=tool()", "tool"),
        ("a=tool()x3", "tool"),
    ],
)
def test_shapes(world, text, expected):
    assert shape(world[4].read_fixed(text).workflow) == expected
