"""While sub-agents work, their main agent's row of the cache waits for it, and stops nobody."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from metaagentx.policy.config import ModelConfig
from metaagentx.policy.params import initialise
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.options import EngineOptions, SamplingOptions
from metaagentx.rollout.scheduler import run
from metaagentx.teams.team import SubAgent, Team, in_this_process, work
from metaagentx.workflow.conversation import Setting
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Fork
from metaagentx.workflow.room import CHARACTERS
from tests.rollout.arithmetic import Boxed
from tests.rollout.scripted import Adder

CONFIG = ModelConfig(
    vocab_size=13, d_model=16, layers=1, heads=2, kv_heads=1, head_dim=8, d_ff=32, rope_theta=1e4,
    rope_scaling=None, norm_eps=1e-6, qkv_bias=False, qk_norm=True, experts=None, tied_embeddings=False,
    max_length=256, dtype="float32",
)  # fmt: skip
OPTIONS = EngineOptions(slots=3, capacity=256, prompt_buckets=(256,), admit_buckets=(4,), chunk=4, share_unit=1)
TEAM = Team("L.", (SubAgent("echo", "", "sub", "E."),), rounds=2, errands=9)
NEVER = 99  # no such token: replies are as long as their bounds
SAMPLING = {"main": SamplingOptions(max_tokens=5), "sub": SamplingOptions(max_tokens=3)}
SETTING = Setting(Boxed(), Wording(), "main", {}, CHARACTERS)


class Sketch:
    """Letters for a model of 13 tokens. A reply of five is the main agent's: two sub-tasks, made of its tokens."""

    def begin(self, messages):
        return [2 + ord(letter) % 10 for message in messages for letter in message["role"][0] + message["content"]]

    def extend(self, ids, messages, ended):
        return [*ids, *self.begin(messages)]

    def decode(self, ids):
        if len(ids) < 5:
            return "".join(chr(97 + token) for token in ids)
        tasks = [{"name": "echo", "arguments": {"task": f"{number}{sum(ids)}"}} for number in range(2)]
        return "".join(f"<tool_call>{json.dumps(task)}</tool_call>" for task in tasks)


def roll(count, **changes):
    engine = Engine(CONFIG, dataclasses.replace(OPTIONS, **changes), (NEVER,))
    engine.load(jax.tree.map(lambda w: w * 10 if w.ndim > 2 else w, initialise(CONFIG, jax.random.key(0))), 1)

    def unmarked(errand):
        yield from ()

    def rollouts():
        delegate = in_this_process(TEAM, {"sub": dataclasses.replace(SETTING, role="sub")}, unmarked)
        return (yield Fork(tuple(work(f"{k}?", TEAM, SETTING, delegate) for k in range(count)), "execution"))

    engines = dict.fromkeys(SAMPLING, engine)
    ended, rows, _ = run(rollouts(), engines, Sketch(), Adder(), SAMPLING, seed=0, step=0)
    assert all(len(rollout.errands) == 4 for rollout in ended)
    return engine.take_work(), rows


def spoken_before(row):
    """Tokens of the turns before, at each turn but the first, all but the last of which an engine has computed."""
    begins = [at for at in np.flatnonzero(row.loss_mask) if not row.loss_mask[at - 1]]
    ends = [at + 1 for at in np.flatnonzero(row.loss_mask) if at + 1 == len(row.tokens) or not row.loss_mask[at + 1]]
    return [end - 1 for end in ends[: len(begins) - 1]]


def test_after_its_sub_agents_a_main_agents_next_turn_computes_only_what_is_new():
    kept, rows = roll(1)
    (main,) = [row for row in rows if row.role == "main"]
    assert kept.dialogue_tokens == sum(spoken_before(main))
    assert len(spoken_before(main)) == 2
    left, others = roll(1, during_tools="leave", slots=1)  # its sub-agents take the row that it leaves
    assert left.dialogue_tokens == 0
    assert [row.tokens.tolist() for row in rows] == [row.tokens.tolist() for row in others]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_rows_that_wait_leave_room_for_the_sub_agents_they_wait_for(slots):
    """More main agents than rows: every row could wait for calls that then had none."""
    _, rows = roll(4, slots=slots)
    _, others = roll(4, slots=8, during_tools="leave")
    assert [row.tokens.tolist() for row in rows] == [row.tokens.tolist() for row in others]
