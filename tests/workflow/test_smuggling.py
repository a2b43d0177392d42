"""A literal in a design gains nothing: what a run results in is what an executor said, whatever the design says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.workflow import ir
from metaagentx.workflow.bounds import bounds
from metaagentx.workflow.check import check
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.protocol import Call, Outcome, Reply, ToolCall, ToolResult
from metaagentx.workflow.replay import drive
from metaagentx.workflow.texts import texts
from tests.workflow.acting import WORDS, Boxed
from tests.workflow.strategies import workflows

ANSWER = "\\boxed{42}"
REPLIES = (
    *("I do not know.", "\\boxed{1} yes", "\\boxed{2} VERDICT: CORRECT", "VERDICT: INCORRECT, \\boxed{3}"),
    '<tool_call>{"name": "calculator", "arguments": {"expression": "6 * 7"}}</tool_call>',
)
KINDS = {
    "agent": ir.Agent(ANSWER, ANSWER, task=f"Say {ANSWER}."),
    "ensemble": ir.Ensemble(ANSWER, (ir.Agent("a", ANSWER), ir.Agent("b", ANSWER)), judge=ir.Agent("c", ANSWER)),
    "reflection": ir.Reflection(ANSWER, ir.Agent("a", ANSWER), None, 2, ANSWER, f"{ANSWER} {{response}}"),
    "debate": ir.Debate(ANSWER, (ir.Agent("a", ANSWER), ir.Agent("b", ANSWER))),
    "router": ir.Router(ANSWER, ((ANSWER, ir.Agent("a", ANSWER)),), ir.AgentRule(ir.Agent("b", ANSWER)), ANSWER),
    "loop": ir.Loop(ANSWER, (ir.Agent("a", ANSWER),), ir.Contains(ANSWER), 2),
    "branch": ir.Branch(ANSWER, ir.Contains(ANSWER), (ir.Agent("a", ANSWER),)),
    "graph": ir.Graph(ANSWER, (ir.Agent(ANSWER, ANSWER),), (), ANSWER, (ANSWER,)),
    "workflow": ir.Workflow(ANSWER, (ir.Agent("a", ANSWER),)),
}


def outcome_of(workflow: ir.Workflow, replies: random.Random) -> tuple[str, str | None, list[str]]:
    """(text, answer, everything that executors said) of one run with random replies."""
    said: list[str] = []

    def answer(path: object, request: Call | ToolCall) -> Reply | ToolResult:
        if isinstance(request, ToolCall):
            return ToolResult(ANSWER)
        text = replies.choice(REPLIES)
        said.append(text)
        return Reply(text, replies.choice((Outcome.OK, Outcome.OK, Outcome.CUT)))

    calls = bounds(workflow).model_calls
    result = drive(run(workflow, "What is 6 * 7?", Boxed(), wording=WORDS, max_calls=calls), answer)
    return result.text, result.answer, said


@settings(max_examples=30, deadline=None)
@given(workflows(), st.integers(0, 2**32))
def test_a_run_results_in_what_an_executor_said(workflow: ir.Workflow, seed: int) -> None:
    if check(workflow, ir.Limits()) is None:
        text, answer, said = outcome_of(workflow, random.Random(seed))
        assert text == "" or text in said
        assert answer in (None, "1", "2", "3")


def test_no_kind_of_node_hands_its_own_words_in() -> None:
    workflow = ir.Workflow(ANSWER, tuple(KINDS.values()))
    assert sum(ANSWER in text for text in texts(workflow)) > 3 * len(KINDS)
    for node in KINDS.values():
        for seed in range(30):
            text, answer, said = outcome_of(ir.Workflow(ANSWER, (node,)), random.Random(seed))
            assert answer != "42"
            assert text == "" or text in said


def test_the_texts_of_a_design_are_its_words_and_no_settings() -> None:
    agent = ir.Agent("solver#2", "Add.", ("calculator",), 17, "7 + {question}")
    reflection = ir.Reflection("r", agent, None, 9, "check", "mend")
    route = ir.Router(
        "o",
        (
            (
                "left",
                ir.Ensemble("e", (agent, ir.Agent("b", "Given."))),
            ),
        ),
        ir.KeywordRule(()),
    )
    found = list(texts(ir.Workflow("w", (reflection, route)), {"Given."}))
    assert sorted(filter(None, found)) == sorted(
        ["w", "r", "check", "mend", "solver", "Add.", "7 + {question}", "o", "left", "e", "b"]
    )


@pytest.mark.parametrize(
    "knows",
    [
        ir.Loop("l", (ir.Agent("a"),), ir.AnyOf((ir.Not(ir.Contains(ANSWER)), ir.AnswerAgrees()))),
        ir.Branch("b", ir.AllOf((ir.VerdictAccepts(), ir.Contains(ANSWER))), (ir.Agent("a"),)),
        ir.Graph("g", (ir.Agent("a"),), (ir.Edge("a", "a", ir.Contains(ANSWER)), ir.Edge("a", "a")), "a", ("a",)),
        ir.Router("r", (("x", ir.Agent("a")),), ir.KeywordRule(((ANSWER, "x"),))),
        ir.Router("r", (("x", ir.Agent("a")),), ir.ConditionRule(((ir.Contains(ANSWER), "x"),))),
    ],
)
def test_a_condition_that_looks_for_the_answer_says_it(knows: ir.Node) -> None:
    assert ANSWER in set(texts(ir.Workflow("w", (knows,))))
