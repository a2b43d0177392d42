"""A team's rollouts with their rewards and trajectories, driven by scripted policies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.work import Work
from metaagentx.tasks.task import GradingFailed, Question
from metaagentx.teams.options import SubAgentOptions, SubReward, TeamOptions
from metaagentx.teams.play import Scene, play
from metaagentx.teams.reward import judged, read_mark
from metaagentx.teams.team import Errand
from metaagentx.workflow.context import Said
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Outcome, Reply
from metaagentx.workflow.room import CHARACTERS
from tests.rollout.arithmetic import Sums
from tests.rollout.scripted import Adder, Letters, Scripted

OPTIONS = TeamOptions(
    "Lead.",
    subs={
        "adder": SubAgentOptions("adds", "sub", "Add.", ("add",), 2),
        "echo": SubAgentOptions("repeats", "parrot", "Echo."),
    },
    rollouts=2,
    rounds=2,
    errands=3,
)
ROLES = ("main", "parrot", "sub", "judge")


class Parts(Sums):
    """Knows the sub-task "3+4" as a question."""

    def find(self, prompt):
        return Question("5", "odd", "3+4", "mathematics") if prompt == "3+4" else None

    def size(self, split):
        return 10


class Counting(Scripted):
    def watch(self, clock):
        """Nothing is counted."""

    def take_work(self):
        return Work()

    def room(self, reply):
        return 10_000


def call(name, task):
    return "<tool_call>" + json.dumps({"name": name, "arguments": {"task": task}}) + "</tool_call>"


GOOD = {
    "5+2>": call("adder", "3+4") + call("echo", "hi"),
    "3+4>": "=7",
    "uhi>": "hi hi",
    "t=7thi hi>": "so =7",
}


def drive(replies, options=OPTIONS, questions=(5,), task=None, **engine):
    task = task or Parts()
    engine = Counting(lambda prompt: next(text for end, text in replies.items() if prompt.endswith(end)), **engine)
    engines = dict.fromkeys(options.roles, engine)
    scene = Scene(task, options, Wording(), {"add": "{adds}"}, dict.fromkeys(ROLES, CHARACTERS))
    sampling = dict.fromkeys(ROLES, SamplingOptions(1.0, 1000))
    asked = [task.question("train", index) for index in questions]
    return play(asked, scene, engines, Letters(), Adder(), sampling, seed=0, step=0), engine


def test_rewards_are_those_of_the_formula():
    played, _ = drive(GOOD)
    for rollout in played.trees[0].rollouts:
        assert (rollout.correct, rollout.reward) == (1.0, pytest.approx(0.1 + 0.9))
        adder, echo = rollout.errands
        assert (adder.mark, adder.reward) == (1.0, pytest.approx(0.1 + 0.4 + 0.5))
        assert (echo.mark, echo.reward) == (None, 0.0), "its report holds no answer"


@pytest.mark.parametrize(
    ("last", "report", "main", "sub"),
    [
        ("so =8", "=7", 0.1, 0.1 + 0.5),  # the report was right, the rollout was not
        ("so =7", "=8", 1.0, 0.1 + 0.4),  # the other way round
        ("seven", "=7", 0.0, 0.1 + 0.5),  # no answer: an invalid form earns nothing
        ("so =7", "seven", 1.0, 0.0),
    ],
)
def test_an_invalid_form_earns_nothing_for_either_role(last, report, main, sub):
    played, _ = drive({**GOOD, "3+4>": report, f"t{report}thi hi>": last})
    rollout = played.trees[0].rollouts[0]
    assert (rollout.reward, rollout.errands[0].reward) == (pytest.approx(main), pytest.approx(sub))


def test_a_sub_task_that_the_task_does_not_know_earns_as_a_wrong_one_and_is_counted():
    played, _ = drive({**GOOD, "uhi>": "=1", "t=7t=1>": "=7"})
    echo = played.trees[0].rollouts[0].errands[1]
    assert (echo.mark, echo.reward) == (None, pytest.approx(0.1 + 0.4))
    assert played.metrics["team/unmarked"] == 0.5
    assert played.metrics["team/mark/adder"] == 1.0


def test_trajectories_are_joined_to_their_sub_tasks_by_number():
    played, _ = drive(GOOD, questions=(5, 5))
    rows = [(row.question, row.design, row.execution, row.role, row.agent) for row in played.trajectories]
    mine = [(-1, "main", "main"), (0, "sub", "adder"), (1, "parrot", "echo")]
    assert rows == [(q, k, *own) for q in range(2) for k in range(2) for own in mine]
    for rollout in played.trees[1].rollouts:
        assert rollout.errands[1].trajectory.agent == "echo"
        assert rollout.rollout.tokens == sum(row.generated for row in rollout.trajectories)


def test_a_sub_task_in_which_nothing_was_sampled_has_no_trajectory_and_moves_no_other():
    played, _ = drive({**GOOD, "3+4>": None, "thi hi>": "so =7"})
    silent, echo = played.trees[0].rollouts[0].errands
    assert (silent.trajectory, silent.reward) == (None, 0.0)
    assert (echo.trajectory.agent, echo.trajectory.execution) == ("echo", 1)


def test_several_rounds_number_their_sub_tasks_on():
    replies = {"5+2>": call("adder", "3+4"), "3+4>": "=7", "t=7>": call("echo", "hi"), "uhi>": "hi", "gthi>": "=7"}
    final = {Wording().final + ">": "=7"}
    played, _ = drive({**final, **replies})
    rollout = played.trees[0].rollouts[0]
    assert [(e.errand.sub, e.trajectory.execution) for e in rollout.errands] == [("adder", 0), ("echo", 1)]


def test_what_is_sampled_does_not_depend_on_how_calls_were_batched():
    played, engine = drive(GOOD, questions=(5, 5, 5))
    other, one_by_one = drive(GOOD, questions=(5, 5, 5), slots=1, newest_first=True)
    assert sorted(engine.ids) == sorted(one_by_one.ids)
    assert len(set(engine.ids)) == len(engine.ids)
    assert played.digest() == other.digest()


def test_a_main_agent_is_told_of_sub_agents_and_a_sub_agent_of_its_tools():
    _, engine = drive(GOOD)
    system = {ask.role: ask.messages[0].content for ask in engine.asked}
    assert '"name": "adder"' in system["main"]
    assert "{adds}" not in system["main"]
    assert "{adds}" in system["sub"]
    assert "adder" not in system["sub"]


def test_sub_agents_without_a_description_are_not_told_of():
    subs = {name: replace(sub, description="") for name, sub in OPTIONS.subs.items()}
    _, engine = drive(GOOD, replace(OPTIONS, subs=subs))
    assert engine.asked[0].messages[0].content == "Lead."


def test_a_judge_marks_reports_and_leaves_no_trajectory_to_train_on():
    judged = replace(OPTIONS, local="judge", sub_reward=SubReward(0.0, 0.0, 1.0))
    marks = {"Report:\n=7>": "I think 0.75", "Report:\nhi hi>": "good"}
    played, engine = drive(marks | GOOD, judged)
    adder, echo = played.trees[0].rollouts[0].errands
    assert (adder.mark, adder.reward, echo.mark) == (0.75, 0.75, None)
    assert {row.role for row in played.trajectories} == {"main", "sub", "parrot"}
    assert engine.roles.count("judge") == 4
    assert played.metrics["rollout/generated_tokens"] == sum(row.generated for row in played.trajectories)


def test_a_judge_who_does_not_reply_is_our_own_fault_and_one_who_says_nothing_of_use_is_not():
    yes, no = Reply("well", Outcome.OK, 1), Reply("", Outcome.FAILED, 0)

    def verdict(reply):
        asked = judged(Errand("adder", "3+4", Said("adder", "=7", "7", Outcome.OK)), options=OPTIONS)
        next(asked)
        with pytest.raises(StopIteration) as end:
            asked.send(reply)
        return end.value.value

    assert verdict(yes) is None
    with pytest.raises(GradingFailed, match="judge"):
        verdict(no)()


@pytest.mark.parametrize(
    ("text", "mark"), [("1", 1.0), ("0.25 or .5", 0.5), ("2", None), ("-1", None), ("", None), ("0.1</think>x", None)]
)
def test_a_mark_is_the_last_number_if_it_is_one(text, mark):
    assert read_mark(text) == mark


def test_what_was_lost_to_our_own_faults_is_masked_as_a_whole():
    class Broken(Parts):
        def grading(self, question, answer):
            def verdict():
                raise GradingFailed("no sandbox")

            return verdict

    played, _ = drive(GOOD, task=Broken())
    assert all(rollout.masked for rollout in played.trees[0].rollouts)
    assert played.metrics["rollout/masked_executions"] == 2


@pytest.mark.parametrize(("task", "local", "told"), [("hi", 0.5, True), ("3+4", 0.5, False), ("hi", 0.0, False)])
def test_a_step_in_which_no_report_can_be_marked_is_warned_of(task, local, told, caplog):
    replies = {"5+2>": call("echo", task), f"u{task}>": "=7", "t=7>": "=7"}
    played, _ = drive(replies, replace(OPTIONS, sub_reward=SubReward(local=local)))
    assert played.metrics["team/errands"] == 1
    assert ("nobody could mark any report of step" in caplog.text) == told


def test_a_team_of_one_answers_alone():
    played, _ = drive({"5+2>": "=7"}, TeamOptions("Lead.", rollouts=3))
    assert [rollout.reward for rollout in played.trees[0].rollouts] == [pytest.approx(1.0)] * 3
    assert played.metrics["team/alone"] == 1.0
    assert {row.role for row in played.trajectories} == {"main"}
