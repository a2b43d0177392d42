"""A team's rollout, driven by scripted policies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.scheduler import run
from metaagentx.teams.team import SubAgent, Team, in_this_process, work
from metaagentx.workflow.conversation import Setting
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Fork, Outcome
from metaagentx.workflow.room import CHARACTERS
from tests.rollout.arithmetic import Boxed
from tests.rollout.scripted import Adder, Letters, Scripted

TEAM = Team(
    "Lead.",
    (SubAgent("adder", "adds", "sub", "Add.", ("add",), 2), SubAgent("echo", "repeats", "parrot", "Echo.")),
    rounds=2,
    errands=3,
)
SETTING = Setting(Boxed(), Wording(), "main", {}, CHARACTERS)
SETTINGS = {role: replace(SETTING, role=role) for role in ("sub", "parrot")}


def unmarked(errand):
    yield from ()


def call(name, **arguments):
    return "<tool_call>" + json.dumps({"name": name, "arguments": arguments}) + "</tool_call>"


def drive(replies, team=TEAM, count=1, slots=100):
    """Rollouts in which every policy answers a prompt by the first of `replies` whose key ends it."""
    engine = Scripted(lambda prompt: next(text for end, text in replies.items() if prompt.endswith(end)), slots=slots)
    engines = dict.fromkeys(("main", "sub", "parrot"), engine)

    def several():
        branches = tuple(work("7?", team, SETTING, in_this_process(team, SETTINGS, unmarked)) for _ in range(count))
        return (yield Fork(branches, "execution"))

    sampling = dict.fromkeys(engines, SamplingOptions(1.0, 1000))
    rollouts, rows, _ = run(several(), engines, Letters(), Adder(), sampling, seed=0, step=0)
    return rollouts, rows, engine


BOTH = call("adder", task="3+4") + call("echo", task="hi")
GOOD = {
    "7?>": BOTH,
    "3+4>": call("add", numbers=[3, 4]),
    "t7>": "=7",
    "uhi>": "hi hi",
    "t=7thi hi>": "so =7",
}


def test_sub_tasks_of_one_reply_run_side_by_side_and_come_back_in_order():
    (rollout,), rows, engine = drive(GOOD)
    assert (rollout.said.answer, rollout.outcome, rollout.refused) == ("7", Outcome.OK, 0)
    assert [(e.sub, e.task, e.said.text) for e in rollout.errands] == [("adder", "3+4", "=7"), ("echo", "hi", "hi hi")]
    assert engine.steps == 4, "main, both sub-agents, the adder again after its tool, main"
    assert rollout.tokens == sum(row.generated for row in rows)


def test_every_conversation_is_one_trajectory_of_its_own_role():
    _, rows, _ = drive(GOOD, count=2)
    assert sorted((row.execution, row.role, row.agent) for row in rows) == [
        (k, role, agent) for k in range(2) for role, agent in (("main", "main"), ("parrot", "echo"), ("sub", "adder"))
    ]


def test_a_sub_agent_sees_its_sub_task_and_nothing_else():
    _, _, engine = drive(GOOD)
    shown = [[message.content for message in ask.messages] for ask in engine.asked if ask.role == "parrot"]
    assert shown == [["Echo.", "hi"]]


def test_what_is_sampled_does_not_depend_on_how_calls_were_batched():
    _, rows, engine = drive(GOOD, count=3)
    _, others, one_by_one = drive(GOOD, count=3, slots=1)
    assert sorted(engine.ids) == sorted(one_by_one.ids)
    assert len(set(engine.ids)) == len(engine.ids)
    assert [row.tokens.tolist() for row in rows] == [row.tokens.tolist() for row in others]


def test_sub_tasks_beyond_the_bound_are_refused_in_words():
    (rollout,), _, engine = drive({**GOOD, "7?>": BOTH + BOTH, ">": "=1"})
    assert (len(rollout.errands), rollout.refused) == (3, 1)
    assert "may make no more" in engine.asked[-1].messages[-1].content


@pytest.mark.parametrize("arguments", [{}, {"task": 3}, {"task": "  "}, {"task": None}])
def test_a_sub_task_that_is_no_text_is_answered_with_what_would_be(arguments):
    (rollout,), _, engine = drive({"7?>": call("echo", **arguments), ">": "=1"})
    assert rollout.errands == ()
    assert '{"task": "..."}' in engine.asked[-1].messages[-1].content


def test_an_unknown_sub_agent_and_a_silent_one_are_errors_that_the_main_agent_reads():
    (rollout,), _, engine = drive({"7?>": call("nobody", task="x") + call("echo", task="hi"), "hi>": None, ">": "=1"})
    told = [message.content for message in engine.asked[-1].messages if message.role == "tool"]
    assert "no tool 'nobody'" in told[0]
    assert "echo gave no report (too_long)" in told[1]
    assert rollout.errands[0].said.is_silent


def test_after_its_rounds_the_main_agent_must_answer():
    (rollout,), _, engine = drive(
        {"7?>": call("echo", task="hi"), "uhi>": "hi", "thi>": call("echo", task="hi"), ">": "=2"}
    )
    assert len(rollout.errands) == 2
    assert rollout.said.answer == "2"
    assert engine.asked[-1].messages[-1].content == Wording().final


def test_a_team_of_one_answers_alone():
    (rollout,), rows, _ = drive({"7?>": "=7"}, replace(TEAM, subs=()))
    assert (rollout.said.answer, rollout.errands, len(rows)) == ("7", (), 1)


def test_a_main_agent_may_have_tools_of_its_own():
    own = replace(TEAM, tools=("add",))
    replies = {"7?>": call("add", numbers=[3, 4]) + call("echo", task="hi") + call("add", numbers=[1, 1])}
    (rollout,), rows, engine = drive({**replies, "uhi>": "hi hi", ">": "=7"}, own)
    told = [message.content for message in engine.asked[-1].messages if message.role == "tool"]
    assert told == ["7", "hi hi", "2"], "in the order of the calls"
    assert [errand.sub for errand in rollout.errands] == ["echo"]
    assert {row.role for row in rows} == {"main", "parrot"}


def test_tools_and_sub_tasks_have_bounds_of_their_own():
    own = replace(TEAM, tools=("add",), tool_calls=1, errands=1)
    both = call("add", numbers=[3, 4]) + call("echo", task="hi")
    (rollout,), _, engine = drive({"7?>": both + both, "uhi>": "hi hi", ">": "=7"}, own)
    told = [message.content for message in engine.asked[-1].messages if message.role == "tool"]
    assert told[:2] == ["7", "hi hi"]
    assert all("may make no more" in text for text in told[2:])
    assert (len(rollout.errands), rollout.refused) == (1, 1)
