"""Agents that work on the same: votes, reflections and debates."""

from __future__ import annotations

import pytest

from metaagentx.workflow.ir import Agent, Debate, Ensemble, Reflection
from metaagentx.workflow.protocol import Outcome, Reply
from tests.workflow.acting import Stage, box

A, B, C, J = (Agent(name) for name in "ABCJ")


def test_members_run_side_by_side_on_the_same_context_and_only_their_winner_is_seen_later() -> None:
    stage = Stage({"J": box(0), "A": box(5), "B": box(7), "C": box("7 ") + "!", "D": box(1)})
    result = stage.play(J, Ensemble("E", (A, B, C)), Agent("D"))
    context = "Q?\n\n[J]:\n0\n\nyours"
    assert stage.shown()[1:4] == [("A", context), ("B", context), ("C", context)]
    assert [path for _, path in stage.paths()[1:4]] == [(("member", index),) for index in range(3)]
    assert stage.shown()[4] == ("D", "Q?\n\n[J]:\n0\n\n[E]:\n7\n\nyours")
    assert result.answer == "1"


@pytest.mark.parametrize(
    ("answers", "strategy", "weights", "judged", "expected"),
    [
        (["5", "7", "7"], "majority_vote", None, False, box(7)),
        (["5", "7", "9"], "majority_vote", None, False, box(5)),
        (["5", "7", "7"], "majority_vote", None, True, box("J")),
        (["7", " 7", "7"], "majority_vote", None, True, box(7)),
        (["7", None, "7"], "majority_vote", None, True, box(7)),
        ([None, None, "7"], "majority_vote", None, False, box(7)),
        ([None, None, None], "majority_vote", None, False, "A says"),
        (["5", "7", "7"], "weighted_vote", (3.0, 1.0, 1.0), False, box(5)),
        (["5", "7", "7"], "weighted_vote", (2.0, 1.0, 1.0), False, box(5)),
        (["5", "7", "7"], "majority_vote", (3.0, 1.0, 1.0), False, box(7)),
        (["7", "7", "7"], "consensus", None, True, box("J")),
        ([None, None, None], "consensus", None, True, box("J")),
    ],
)
def test_a_vote_is_settled(answers: list, strategy: str, weights: tuple | None, judged: bool, expected: str) -> None:
    lines = {
        name: f"{name} says" if answer is None else box(answer) for name, answer in zip("ABC", answers, strict=True)
    }
    ensemble = Ensemble("E", (A, B, C), strategy, J if judged else None, weights)  # type: ignore[arg-type]
    assert Stage({**lines, "J": box("J")}).play(ensemble).text == expected


def test_the_judge_sees_all_members_and_speaks_for_the_ensemble() -> None:
    stage = Stage({"A": box(5), "B": box(7), "J": box(9), "C": box(1)})
    stage.play(Ensemble("E", (A, B), judge=J), C)
    assert stage.shown()[2:] == [("J", "Q?\n\n[A]:\n5\n\n[B]:\n7\n\njudge"), ("C", "Q?\n\n[E]:\n9\n\nyours")]


def test_the_first_member_that_replied_stands_where_nobody_has_an_answer() -> None:
    assert Stage({"A": "", "B": "well", "C": ""}).play(Ensemble("E", (A, B, C))).text == "well"


def test_reflection_answers_criticises_and_refines_until_the_critic_accepts() -> None:
    stage = Stage({"A": [box(1), box(2)], "C": ["VERDICT: INCORRECT", "VERDICT: CORRECT"], "B": box(0)})
    result = stage.play(B, Reflection("R", A, C, iterations=5))
    before = "Q?\n\n[B]:\n0\n\n"
    assert stage.shown()[1:] == [
        ("A", before + "yours"),
        ("C", before + f"check {box(1)}"),
        ("A", before + f"fix {box(1)} given VERDICT: INCORRECT"),
        ("C", before + f"check {box(2)}"),
    ]
    assert result.answer == "2"


def test_reflection_stops_when_the_answer_stops_changing() -> None:
    stage = Stage({"A": [box(1), "again " + box("1 ")], "C": "hm"})
    assert stage.play(Reflection("R", A, C, iterations=5)).calls == 3


def test_without_a_critic_the_agent_is_its_own_and_iterations_bound_it() -> None:
    stage = Stage({"A": [box(1), "no", box(2), "no", box(3)]})
    result = stage.play(Reflection("R", A, iterations=2))
    assert (result.calls, result.answer) == (5, "3")
    assert {call.conversation for _, call in stage.asked} == set(range(5))


def test_a_prompt_without_a_place_for_the_response_gets_it_as_a_message() -> None:
    stage = Stage({"A": box(1), "C": "VERDICT: revise"})
    stage.play(Reflection("R", A, C, 1, reflection_prompt="Right? {x} {question}", refinement_prompt="Again."))
    assert stage.shown()[1:] == [
        ("C", "Q?\n\n[A]:\n1\n\nRight? {x} Q?"),
        ("A", "Q?\n\n[A]:\n1\n\n[C]:\nVERDICT: revise\n\nAgain."),
    ]


def test_a_refinement_that_fails_leaves_the_last_answer() -> None:
    stage = Stage({"A": [box(1), Reply("", Outcome.FAILED)], "C": "no"})
    assert stage.play(Reflection("R", A, C, 1)).answer == "1"


def test_history_shows_earlier_rounds() -> None:
    stage = Stage({"A": [box(1), box(2), box(3)], "C": ["bad one", "bad two"]})
    stage.play(Reflection("R", A, C, 2, include_history=True))
    assert stage.shown()[3] == ("C", f"Q?\n\n[A]:\n1\n\n[C]:\nbad one\n\ncheck {box(2)}")


def test_a_debate_is_parallel_in_each_round_and_the_judge_sees_only_the_last() -> None:
    stage = Stage({"A": [box(1), box(2)], "B": [box(3), box(4)], "J": box(5)})
    result = stage.play(Debate("D", (A, B), J, rounds=2))
    assert stage.shown() == [
        ("A", "Q?"),
        ("B", "Q?"),
        ("A", "Q?\n\n[A]:\n1\n\n[B]:\n3\n\ndebate"),
        ("B", "Q?\n\n[A]:\n1\n\n[B]:\n3\n\ndebate"),
        ("J", "Q?\n\n[A]:\n2\n\n[B]:\n4\n\nsettle"),
    ]
    assert [path for _, path in stage.paths()] == [
        (("member", 0),),
        (("member", 1),),
        (("member#2", 0),),
        (("member#2", 1),),
        (),
    ]
    assert result.answer == "5"


def test_without_a_judge_the_first_debater_settles() -> None:
    stage = Stage({"A": box(1), "B": box(3)})
    stage.play(Debate("D", (A, B), rounds=1))
    assert [agent for agent, _ in stage.shown()] == ["A", "B", "A"]
