"""Several processes sample some of the questions each: the whole is that of one process."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest

from metaagentx import wire
from metaagentx.rollout.division import Division, Part, join
from metaagentx.rollout.sample import sample
from metaagentx.rollout.scheduler import Spent
from metaagentx.rollout.work import Work
from metaagentx.workbench import open_workbench
from metaagentx.workflow.ir import Agent, AnswerAgrees, Design, Diagnosis, Edge, Graph, Not, Refusal, Workflow
from metaagentx.workflow.protocol import ToolCall, Turn
from tests.test_train import small


def part(designs: list, **more) -> Part:
    given = {"trajectories": [], "work": Work(), "spent": Spent(), "seconds": 1.0, "compilations": 0}
    return Part(designs, **given | more)


@pytest.mark.parametrize("questions", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("places", [1, 2, 3, 4])
def test_every_question_has_one_place_and_the_whole_is_in_order(questions, places):
    divisions = [Division(place, places) for place in range(places)]
    owned = [number for division in divisions for number in division.own(questions)]
    assert sorted(owned) == list(range(questions))
    sizes = [len(division.own(questions)) for division in divisions]
    assert max(sizes) - min(sizes) <= 1
    whole = join([part([[f"of {number}"] for number in division.own(questions)]) for division in divisions])
    assert whole.designs == [[f"of {number}"] for number in range(questions)]


def test_numbers_add_up_and_time_spent_side_by_side_does_not():
    whole = join(
        [
            part([[]], work=Work(calls=3, decode_seconds=1.0), spent=Spent(calls=3, tool_seconds=2.0), seconds=4.0),
            part([[]], work=Work(calls=4, decode_seconds=3.0), spent=Spent(idle_seconds=1.0), compilations=2),
        ]
    )
    assert whole.work == Work(calls=7, decode_seconds=2.0)
    assert whole.spent == Spent(calls=3, tool_seconds=2.0, idle_seconds=0.5)
    assert (whole.seconds, whole.compilations) == (4.0, 2)


class Sent(Exception):
    """The part is out; there is nobody to answer."""


@pytest.fixture(scope="module")
def sampled():
    """A rollout of five questions by one process, what each of three would send for it, and the whole of those."""
    with open_workbench(small()) as bench:
        engines = bench.engines(bench.fresh_weights(), version=7)
        questions = [bench.task.question("train", number) for number in range(5)]
        designs = ["a=solve()x3", "", "a=solve()", "", "a=solve()"]

        def by(division: Division):
            parts = bench.task, questions, engines, bench.chat, bench.toolbox, bench.language
            with bench.sampling():
                return sample(
                    *parts,
                    bench.settings.tree,
                    bench.settings.sampling,
                    seed=0,
                    step=3,
                    designs=designs,
                    division=division,
                )

        def send(find) -> list[Part]:
            sent.append(wire.encode(find()))
            raise Sent

        alone, sent = by(Division()), []
        for place in range(3):
            with pytest.raises(Sent):
                by(Division(place, 3, send))
        again = by(Division(2, 3, lambda find: [wire.decode(data) for data in sent]))
    return alone, again, sent


def test_a_rollout_in_parts_is_the_rollout_of_one_process(sampled):
    alone, again, sent = sampled
    assert again.digest() == alone.digest()
    keys = [(t.question, t.design, t.execution, t.agent, t.turn, t.version) for t in alone.trajectories]
    assert keys == [(t.question, t.design, t.execution, t.agent, t.turn, t.version) for t in again.trajectories]
    for ours, theirs in zip(again.trees, alone.trees, strict=True):
        assert [(d.text, d.parsed, d.key, d.short) for d in ours.designs] == [
            (d.text, d.parsed, d.key, d.short) for d in theirs.designs
        ]
        for a, b in zip(ours.designs, theirs.designs, strict=True):
            assert [e.result for e in a.executions] == [e.result for e in b.executions]
    same = ("rollout/", "tools/calls")
    clocks = ("second", "compilations")
    assert {k: v for k, v in again.metrics.items() if k.startswith(same) and not any(c in k for c in clocks)} == {
        k: v for k, v in alone.metrics.items() if k.startswith(same) and not any(c in k for c in clocks)
    }
    assert [len(wire.decode(data).designs) for data in sent] == [2, 2, 1]


def test_a_part_comes_out_of_its_bytes_as_it_went_in(sampled):
    graph = Graph("g", (Agent("a", tools=("t",)),), (Edge("a", "a", Not(AnswerAgrees())),), "a", ("a",))
    _, _, sent = sampled
    one = wire.decode(sent[0])
    design = one.designs[0][0]
    run = design.executions[0].result
    hostile = ToolCall("t", {"type": ["Part", {"x": None}], "\udc80": [1, 2.5, True]}, "a")
    turn = Turn("a", run.turns[0].messages, run.turns[0].reply, (hostile,))
    design.parsed = Design(Workflow("w", (graph,)))
    design.executions[0].result = dataclasses.replace(run, turns=(turn,))
    design.executions[0].reward = np.float32(0.1).item()
    one.designs[1] = [dataclasses.replace(design, parsed=Diagnosis(Refusal.SYNTAX, "no"), executions=[])]
    again = wire.decode(wire.encode(one))
    assert again.designs == one.designs
    assert isinstance(again.designs[0][0].outcome, type(design.outcome))
    for a, b in zip(again.trajectories, one.trajectories, strict=True):
        assert all(
            np.array_equal(x, y) and x.dtype == y.dtype
            for x, y in ((a.tokens, b.tokens), (a.loss_mask, b.loss_mask), (a.logprobs, b.logprobs))
        )


def test_nothing_but_the_classes_of_a_rollout_is_made_of_bytes(sampled):
    with pytest.raises(TypeError, match="a PosixPath has no place in a part"):
        wire.encode(part([[Path("x")]]))
    file = io.BytesIO()
    text = json.dumps(["Popen", {"args": "true"}])
    np.savez(file, np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(KeyError, match="Popen"):
        wire.decode(file.getvalue())
    file = io.BytesIO()
    np.savez(file, np.array([object()], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        wire.decode(file.getvalue())
