"""Sub-agents use the tools of a run, over several turns, and report: by scripted replies and the tools themselves."""

from __future__ import annotations

import json

import pytest

from metaagentx.rollout.options import SamplingOptions
from metaagentx.tasks.toolbox import open_toolbox
from metaagentx.teams.options import SubAgentOptions, TeamOptions
from metaagentx.teams.play import Scene, play
from metaagentx.tools.options import ToolOptions
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.room import CHARACTERS
from tests.rollout.scripted import Letters
from tests.teams.test_play import Counting, Parts

ROLES = ("main", "read", "code")
TEAM = TeamOptions(
    "Lead.",
    subs={
        "reader": SubAgentOptions("reads", "read", "Search, read and report.", ("search", "fetch_data")),
        "coder": SubAgentOptions("computes", "code", "Write programs and report.", ("python_execute",)),
    },
    rollouts=2,
)


def call(name, **arguments):
    return "<tool_call>" + json.dumps({"name": name, "arguments": arguments}) + "</tool_call>"


def played(replies, tmp_path, *names):
    """One question, "5+2". Agents say the first of `replies` whose key is in what they were told last."""

    def reply(prompt):
        told = prompt.rpartition("\0")[2]
        return next(text for key, text in replies.items() if key in told)

    tools = open_toolbox(ToolOptions(names, corpus="sample"), tmp_path, lambda: Sandbox(SandboxOptions(workers=1)))
    engine, task = Counting(reply), Parts()
    scene = Scene(task, TEAM, Wording(), tools.texts(), dict.fromkeys(ROLES, CHARACTERS))
    sampling = dict.fromkeys(ROLES, SamplingOptions(1.0, 1000))
    questions = [task.question("train", 5)]
    engines = dict.fromkeys(ROLES, engine)
    return play(questions, scene, engines, Letters(), tools, sampling, seed=0, step=0).trees[0].rollouts


def said_and_told(trajectory):
    """What a policy said, which it is trained on, and what it was told."""
    said = trajectory.loss_mask
    return Letters().decode(trajectory.tokens[said]), Letters().decode(trajectory.tokens[~said])


def test_a_sub_agent_searches_reads_and_reports(tmp_path):
    searches = call("search", query="moons of Mars") + call("search", query="red planet")
    replies = {
        "u5+2": call("reader", task="How many moons has Mars?"),
        "How many moons": searches,
        "t1. ": call("fetch_data", query="mars"),
        "Asaph Hall": "Phobos and Deimos: =2",
        "tPhobos": "so =7",
    }
    for rollout in played(replies, tmp_path, "search", "fetch_data"):
        (errand,) = rollout.errands
        found, read, report = errand.errand.turns
        assert [len(turn.tool_results) for turn in (found, read, report)] == [2, 1, 0]
        assert all(result.ok and "(id: mars)" in result.text for result in found.tool_results)
        assert "Olympus Mons" in read.tool_results[0].text
        said, told = said_and_told(errand.trajectory)
        assert said == searches + replies["t1. "] + replies["Asaph Hall"]
        assert "Olympus Mons" in told
        assert (errand.trajectory.role, errand.trajectory.agent) == ("read", "reader")
        said, told = said_and_told(rollout.trajectory)
        assert said == replies["u5+2"] + "so =7"
        assert "Phobos" in told
        assert "Olympus" not in told, "a report is all that the main agent sees"
        assert rollout.reward == pytest.approx(1.0)
        assert errand.reward == pytest.approx(0.1 + 0.4)


def test_a_sub_agent_runs_programs_in_the_sandbox_and_reports_what_another_needs(tmp_path):
    wrong, right = call("python_execute", code="print(3 +)"), call("python_execute", code="print(sum([3, 4]))")
    replies = {
        "u5+2": call("coder", task="3+4") + call("reader", task="Which planet is red?"),
        "Which planet": call("search", query="red planet"),
        "t1. ": "=Mars",
        "3+4": wrong,
        "SyntaxError": right,
        "t7": "=7",
        "t=Mars": "so =7",
    }
    try:
        rollouts = played(replies, tmp_path, "search", "fetch_data", "python_execute")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    for rollout in rollouts:
        coder, reader = rollout.errands
        assert [result.text for turn in coder.errand.turns for result in turn.tool_results][1:] == ["7"]
        assert said_and_told(coder.trajectory)[0] == wrong + right + "=7"
        assert said_and_told(reader.trajectory)[0] == replies["Which planet"] + "=Mars"
        assert (coder.mark, coder.reward) == (1.0, pytest.approx(0.1 + 0.4 + 0.5))
        assert "t=7t=Mars" in said_and_told(rollout.trajectory)[1]
