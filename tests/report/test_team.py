"""A team's episode on the page and in a terminal: whom the main agent asked what, what came back, what it earned."""

from __future__ import annotations

import json

import pytest
import workdir
from test_page import Reader

from metaagentx.report import episode_page, episode_text, page, records, team_records
from metaagentx.report.page import Run
from metaagentx.tasks.task import Question
from metaagentx.teams.team import Errand, Rollout
from metaagentx.teams.tree import Graded, GradedErrand, TeamTree
from metaagentx.workflow.context import Said
from metaagentx.workflow.protocol import Message, Outcome, Reply, ToolCall, ToolResult, Turn

TASKS = ("2 + 3", "2 + 3", workdir.HOSTILE)  # the first one twice
REPORTS = ("5", "6", workdir.HOSTILE)


def said(text: str, answer: str | None) -> Said:
    return Said("main", text, answer, Outcome.OK if text else Outcome.CUT)


def errand(number: int) -> GradedErrand:
    turn = Turn("solver", (Message("user", TASKS[number]),), Reply(REPORTS[number], Outcome.OK, 3))
    done = Errand("solver", TASKS[number], said(REPORTS[number], REPORTS[number]), (turn,), 3)
    return GradedErrand(done, (1.0, 0.0, None)[number], (0.9, 0.5, 0.5)[number])


def tree() -> TeamTree:
    """A rollout that asks twice the same and calls a tool of its own, and one that asks nobody and is cut."""
    calls = *(ToolCall("solver", {"task": task}, "main") for task in TASKS[:2]), ToolCall("tool", {"task": 3}, "main")
    asks = Turn(
        "main",
        (Message("system", "Lead."), Message("user", "Q?")),
        Reply("I ask.", Outcome.OK, 9),
        calls,
        (*(ToolResult(report) for report in REPORTS[:2]), ToolResult("no such thing", ok=False)),
    )
    again = Turn(
        "main",
        tuple(Message("tool", report) for report in REPORTS[:2]),
        Reply("Once more.", Outcome.OK, 4),
        (ToolCall("solver", {"task": f" {TASKS[2]} "}, "main"),),
        (ToolResult(REPORTS[2]),),
    )
    ends = Turn("main", (Message("tool", REPORTS[2]),), Reply("=5", Outcome.OK, 2))
    errands = [errand(number) for number in range(3)]
    whole = Rollout(said("=5", "5"), Outcome.OK, (asks, again, ends), 24, 1, tuple(e.errand for e in errands))
    cut = Turn("main", (Message("user", "Q?"),), Reply("", Outcome.CUT, 7))
    nothing = Rollout(said("", None), Outcome.CUT, (cut,), 7, 0, ())
    question = Question("one-1", "one", "Q?", "text")
    return TeamTree(question, [Graded(whole, 1.0, 1.0, False, errands), Graded(nothing, 0.0, 0.0, False, [])])


@pytest.fixture
def record() -> dict:
    advantages = {(0, -1): 0.71, (1, -1): -0.71, (0, 0): 1.1, (0, 1): -0.6}  # the third sub-task was dropped
    return team_records.team_episode(tree(), advantages, step=20, phase="joint")


def test_an_episode_survives_json_and_its_turns_are_read_back(record):
    assert json.loads(json.dumps(record)) == record
    assert records.turns_of(record["rollouts"][0]) == tree().rollouts[0].rollout.turns
    assert records.turns_of(record["rollouts"][0]["errands"][2]) == tree().rollouts[0].errands[2].errand.turns


def test_each_sub_task_stands_where_it_was_asked_for(record):
    source = episode_page.episode(record, opened=True)
    reader = Reader(source)
    assert reader.open == []
    assert "script" not in reader.tags
    text = reader.text
    words = "report marked 1.00", "report marked 0.00", "calls the tool tool", "nobody could mark it", "=5 Rollout 2"
    first, second, own, third, end = map(text.index, words)
    assert first < second < own < third < end
    assert text.index("I ask.") < first
    assert second < text.index("Once more.") < third
    assert source.count('<details class="errand">') == 3
    assert "1 of 2 runs right" in text
    assert "3 sub-tasks, 1 more refused" in text
    assert "advantage −0.60" in text
    assert text.count("advantage") == 4  # none of what was dropped
    assert "0 sub-tasks" in text


def test_a_terminal_shows_both_the_lead_and_the_errands(record):
    text = episode_text.render(record)
    assert "Sub-task 2 for solver  reward 0.50, advantage -0.60, marked 0.00" in text
    assert text.index("Rollout 1") < text.index("main: =5") < text.index("Sub-task 1") < text.index("Rollout 2")
    assert "reward" not in episode_text.render(record, graded=False)


def test_the_page_of_a_team_speaks_of_a_team(record):
    config = {"team": {"subs": {"solver": {}, "calc": {}}}}
    results = workdir.RESULTS | {
        "players": ["main agent", "sub-agents"],
        "ways_by_kind": {"one": [{"way": "2 solver", "share": 1.0, "accuracy": 0.5}]},
        "config": config,
        "table": [],
    }
    metrics = [
        {"step": step, "phase": phase, "time": 1.0, "team/errands/solver": 1.5, "team/mark/solver": 0.5}
        for step, phase in enumerate(("main", "sub"), 1)
    ]
    reader = Reader(page.render(Run("r", metrics, [record], results, config)))
    text = reader.text
    for words in (
        "a main agent answers each question with the help of sub-agents ( calc , solver )",
        "by the main agent",
        "trained sub-agents",
        "Delegation by kind of question",
        "2 solver",
        "Sub-tasks of a rollout",
        "Mark of the reports",
        "its rollouts, and in them whom the main agent asked what",
    ):
        assert words in text, words
    assert "designer" not in text
    assert ("class", "phase lead") in reader.attributes
    assert ("class", "phase follow") in reader.attributes
