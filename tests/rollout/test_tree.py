from __future__ import annotations

import itertools

import pytest

from metaagentx.rollout.measure import measure_trees
from metaagentx.rollout.options import SamplingOptions, TreeOptions
from metaagentx.rollout.reward import judge, mean_reward
from metaagentx.rollout.sample import attach
from metaagentx.rollout.scheduler import run
from metaagentx.rollout.tree import forest
from metaagentx.tasks.task import GradingFailed
from metaagentx.workflow.protocol import Outcome, RunResult
from tests.rollout.arithmetic import LANGUAGE, Sums
from tests.rollout.scripted import Adder, Letters, Scripted

SAMPLING = {"designer": SamplingOptions(), "executor": SamplingOptions()}
TASK = Sums()


def grow(reply, options, questions=1, task=TASK):
    engine = Scripted(reply)
    process = forest([task.question("train", i) for i in range(questions)], task, options, LANGUAGE)
    trees, rows, _ = run(
        process, {"designer": engine, "executor": engine}, Letters(), Adder(), SAMPLING, seed=0, step=0
    )
    attach(trees, rows)
    return trees, rows


def script(designs, answers):
    """Designer and executor calls are answered in turn from two lists."""
    designs, answers = itertools.cycle(designs), itertools.cycle(answers)
    return lambda prompt: next(designs) if prompt.startswith("sD") else next(answers)


def result(answer="2", outcome=Outcome.OK, calls=1, tokens=10):
    return RunResult("", answer, outcome, calls=calls, tokens=tokens)


@pytest.mark.parametrize(
    ("form", "unit", "correct", "answer", "expected"),
    [
        ("additive", "tokens", 1.0, "2", 1.0 + 0.1 - 0.5 * 10 / 40),
        ("additive", "calls", 1.0, "2", 1.0 + 0.1 - 0.5 * 3 / 40),
        ("product", "tokens", 1.0, "2", 1.0 * (1 - 0.5 * 10 / 40) + 0.1),
        ("product", "tokens", 0.0, "7", 0.1),
        ("additive", "tokens", 0.0, None, -0.5 * 10 / 40),
        ("product", "calls", 0.0, None, 0.0),
    ],
)
def test_rewards_are_those_of_the_formula(form, unit, correct, answer, expected):
    options = TreeOptions(w_cost=0.5, cost_form=form, cost_unit=unit, budget=40)
    assert judge(result(answer, calls=3), correct, options).reward == pytest.approx(expected)


def test_cost_is_at_most_one():
    assert judge(result(tokens=999), 0.0, TreeOptions(budget=10, w_cost=1.0)).cost == 1.0


def test_a_failed_run_is_masked_and_leaves_the_mean():
    options = TreeOptions()
    runs = [judge(result(), 1.0, options), judge(result(None, Outcome.FAILED), 0.0, options)]
    assert [run.masked for run in runs] == [False, True]
    assert mean_reward(runs) == pytest.approx(1.1)
    assert mean_reward(runs[1:]) == 0.0


def test_a_designs_executions_begin_while_other_designs_are_still_being_written():
    class Uneven(Scripted):
        """Answers one designer, and the others only when executors have been asked."""

        def step(self):
            assert self.steps < 20, "no execution begins before the last design is there"
            if "executor" in self.roles or not self.steps:
                return super().step()
            self.steps += 1
            return []

    engine = Uneven(script(["a=solve()"], ["=2"]), slots=1)
    engines, options = {"designer": engine, "executor": engine}, TreeOptions(designs=3, executions=2)
    process = forest([TASK.question("train", 0)], TASK, options, LANGUAGE)
    (tree,), _, _ = run(process, engines, Letters(), Adder(), SAMPLING, seed=0, step=0)
    assert engine.roles[:5] == ["designer"] * 3 + ["executor"] * 2
    assert [len(design.executions) for design in tree.designs] == [2] * 3


def test_a_tree_by_hand():
    options = TreeOptions(designs=2, executions=2, w_invalid=0.2, w_cost=0.1, cost_unit="calls", budget=10)
    (tree,), rows = grow(script(["a=solve()", "nonsense("], ["so =2", "so =5"]), options)
    valid, invalid = tree.designs
    assert (valid.valid, valid.text, valid.short, valid.outcome) == (True, "a=solve()", "a=solve()", Outcome.OK)
    assert [e.correct for e in valid.executions] == [1.0, 0.0]
    assert [e.reward for e in valid.executions] == pytest.approx([1.1 - 0.01, 0.1 - 0.01])
    assert valid.reward == pytest.approx(0.59)
    assert (invalid.valid, invalid.reward, invalid.executions, invalid.key) == (False, -0.2, [], "")
    assert invalid.parsed.message
    assert len(rows) == 2 + 2
    assert invalid.trajectory.role == valid.trajectory.role == "designer"
    assert [(len(e.trajectories), e.trajectories[0].execution) for e in valid.executions] == [(1, 0), (1, 1)]


def test_every_trajectory_joins_one_place_of_its_tree():
    options = TreeOptions(designs=3, executions=2)
    trees, rows = grow(script(["a=solve()x3", "bad(", "a=solve();b=solve({a}+1)"], ["=2"]), options, questions=3)
    joined = [d.trajectory for t in trees for d in t.designs]
    joined += [row for t in trees for d in t.designs for e in d.executions for row in e.trajectories]
    assert {id(row) for row in joined} == {id(row) for row in rows}
    assert len(joined) == len(rows) == 3 * (3 + 2 * 3 + 2 * 2)
    for q, tree in enumerate(trees):
        for d, design in enumerate(tree.designs):
            assert (design.trajectory.question, design.trajectory.design) == (q, d)
            for execution in design.executions:
                assert len(execution.trajectories) == execution.result.calls
                assert sum(row.generated for row in execution.trajectories) == execution.result.tokens


def test_a_given_design_is_run_without_asking_a_designer():
    options = TreeOptions(designs=2, executions=3, fixed_design="a=solve()x3")
    (tree,), rows = grow(script([], ["=2"]), options)
    assert [len(design.executions) for design in tree.designs] == [3, 3]
    assert all(design.trajectory is None and design.reward == pytest.approx(1.1) for design in tree.designs)
    assert {row.role for row in rows} == {"executor"}


def test_a_bad_given_design_is_named():
    with pytest.raises(ValueError, match=r"tree.fixed_design 'a=nobody\(\)'"):
        grow(script([], [""]), TreeOptions(fixed_design="a=nobody()"))


def test_an_answer_written_into_the_design_earns_nothing():
    # The design's text holds the answer "=2"; the agent does not repeat it.
    (tree,), _ = grow(script(["a=solve(say =2)"], ["no"]), TreeOptions(designs=1, executions=1))
    assert tree.designs[0].valid
    assert tree.designs[0].reward == 0.0


def test_designs_that_say_the_answer_are_counted_among_the_valid_ones():
    designs = ['a=agent{prompt:"It is 2 ."}', "a=solve()", "nonsense( 2 )", "a=solve(0 + 2 )"]
    (tree,), _ = grow(script(designs, ["so =5"]), TreeOptions(designs=4, executions=1))
    assert [design.leaks for design in tree.designs] == [True, False, False, True]
    assert measure_trees([tree])["rollout/leaks"] == pytest.approx(2 / 3)
    assert [execution.correct for design in tree.designs for execution in design.executions] == [0.0, 0.0, 0.0]


def test_a_designer_whose_prompt_does_not_fit_is_invalid_and_kept():
    (tree,), rows = grow(lambda prompt: None, TreeOptions(designs=2, w_invalid=0.3))
    assert [(d.outcome, d.reward, d.trajectory) for d in tree.designs] == [(Outcome.TOO_LONG, -0.3, None)] * 2
    assert rows == []


class Late(Sums):
    """Grades when it is asked for the verdict, and notes the order of events; the answer "9" breaks the grader."""

    def __init__(self):
        self.events = []

    def grading(self, question, answer):
        self.events.append("begin")

        def verdict():
            self.events.append("wait")
            if answer == "9":
                raise GradingFailed("no sandbox")
            return super(Late, self).grading(question, answer)()

        return verdict


def test_all_grading_begins_before_any_is_waited_for_so_that_no_engine_waits_for_a_grader():
    task = Late()
    trees, _ = grow(script(["a=solve()"], ["=2"]), TreeOptions(designs=2, executions=3), questions=2, task=task)
    assert task.events == ["begin"] * 12 + ["wait"] * 12
    assert [e.correct for e in trees[0].designs[0].executions] == [1.0] * 3


def test_a_run_whose_grader_broke_down_is_masked_and_not_wrong():
    trees, _ = grow(script(["a=solve()"], ["=2", "=9"]), TreeOptions(designs=1, executions=2), task=Late())
    (design,) = trees[0].designs
    assert sorted((execution.masked, execution.correct) for execution in design.executions) == [
        (False, 1.0),
        (True, 0.0),
    ]
    assert design.reward == pytest.approx(1.1)
