"""An episode's record holds everything a reader asks for."""

from __future__ import annotations

import dataclasses
import json

import pytest
import workdir

from metaagentx.report import records
from metaagentx.rollout.trajectory import DesignRollout, Execution
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Agent, Contains, Design, Loop, Not, Workflow
from metaagentx.workflow.protocol import Call, Outcome, Reply, ToolResult
from metaagentx.workflow.replay import drive, run_again
from tests.workflow.acting import CALL, Boxed
from tests.workflow.scripts import ACCEPTED


def test_an_episode_survives_json_unchanged():
    record = workdir.episodes()[0]
    assert json.loads(json.dumps(record)) == record


def test_an_episode_tells_designs_runs_and_turns():
    record = records.episode(workdir.tree("sum3", 1), step=4, phase="executor", design_advantages=[1.0, 0.0, 0.0, -1.0])
    assert record["question"]["kind"] == "sum3"
    chain, _, tool, refused = record["designs"]
    assert (chain["advantage"], chain["executions"][0]["advantage"]) == (1.0, None)
    assert [turn["agent"] for turn in chain["executions"][0]["turns"]] == ["a", "b"]
    assert chain["executions"][0]["answer"] == "4"
    assert chain["executions"][1]["outcome"] == "unparsable"
    assert tool["executions"][0]["turns"][0]["tool_calls"] == [
        {"name": "calculator", "arguments": {"expression": "gcd(26, 38)"}}
    ]
    assert tool["executions"][0]["turns"][0]["tool_results"] == [{"text": "2", "ok": True}]
    assert not refused["valid"]
    assert refused["workflow"] is None
    assert (refused["diagnosis"]["refusal"], refused["diagnosis"]["column"]) == ("unknown_name", 3)


def test_a_workflow_nests_as_json():
    flow = Workflow("w", (Loop("l", (Agent("a"),), Not(Contains("x"))),))
    loop = records.to_json(flow)["steps"][0]
    assert loop["until"] == {"type": "Not", "condition": {"type": "Contains", "text": "x", "ignore_case": False}}
    assert loop["body"][0]["type"] == "Agent"


def test_advantages_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="4 designs"):
        records.episode(workdir.tree("sum3", 1), step=4, phase="executor", design_advantages=[1.0])
    with pytest.raises(ValueError, match="2 executions"):
        records.episode(workdir.tree("sum3", 1), step=4, phase="joint", execution_advantages=[[1.0], [], [], []])


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_recorded_execution_is_run_again_from_its_line(name):
    flow = ACCEPTED[name][1]

    def process(flow):
        return run(flow, "Q?", Boxed(), max_calls=256)

    def answer(path, request):
        if not isinstance(request, Call):
            return ToolResult("2")
        return Reply(CALL if request.turn == 0 else "\\boxed{2}", Outcome.CUT, 3)

    result = drive(process(flow), answer)
    execution = Execution(result, 1.0, 1.0, 0.0, 1.0)
    tree = workdir.tree("sum3", 1)
    design = DesignRollout("", Design(flow), "", "", 1.0, Outcome.OK, executions=[execution])
    line = json.dumps(records.episode(dataclasses.replace(tree, designs=[design]), step=1, phase="joint"))
    (told,) = json.loads(line)["designs"]
    assert records.workflow_of(told) == flow
    assert run_again(process(records.workflow_of(told)), records.turns_of(told["executions"][0])) == result
