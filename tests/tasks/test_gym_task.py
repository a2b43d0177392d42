import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaagentx.tasks.gym import SPLITS
from metaagentx.tasks.task import Question, Task


def test_gym_task_is_a_task(task):
    accepted: Task = task
    assert accepted.name == "gym"
    assert task.kinds == ("sum3", "sum5", "tool", "spell")
    assert {split: task.size(split) for split in SPLITS} == {"train": 400, "validation": 40, "test": 40}


def test_a_question_shows_nothing_but_what_a_prompt_may_show(task):
    fields = {field.name for field in dataclasses.fields(task.question("train", 0))}
    assert fields == {"id", "kind", "prompt", "domain"}


def test_each_pass_of_the_endless_order_is_a_new_permutation(task):
    size = task.size("validation")
    passes = [[task.question("validation", p * size + i, seed=5).id for i in range(size)] for p in range(2)]
    assert set(passes[0]) == set(passes[1])
    assert len(set(passes[0])) == size
    assert passes[0] != passes[1]


def test_the_stored_order_is_balanced_and_ends(task):
    kinds = [task.question("test", i, seed=-1).kind for i in range(8)]
    assert kinds == ["sum3", "sum5", "tool", "spell"] * 2
    with pytest.raises(IndexError, match="index"):
        task.question("test", task.size("test"), seed=-1)


def test_only_the_right_answer_gets_its_point_however_it_is_spelled(task):
    for index in range(task.size("test")):
        question = task.question("test", index, seed=-1)
        answer = task._by_id[question.id].answer
        assert task.grade(question, answer) == task.grade(question, f" {answer.upper()}. ") == 1.0
        assert task.grade(question, answer + "1") == task.grade(question, "") == task.grade(question, None) == 0.0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.text(max_size=60), st.sampled_from(["nan", "sNaN", "inf", "1e999999999", "9" * 10_000, "{" * 9999]))
)
def test_hostile_answers_are_wrong_and_never_raise(task, answer):
    for index in range(4):
        question = task.question("test", index, seed=-1)
        normal = task.delivery(question).normalise(answer)
        wanted = task.delivery(question).normalise(task._by_id[question.id].answer)
        assert task.grade(question, answer) == float(normal == wanted)


def test_a_foreign_question_is_refused(task):
    with pytest.raises(KeyError, match="nobody"):
        task.grade(Question("nobody", "sum3", "1 + 1 =", "mathematics"), "2")
    with pytest.raises(ValueError, match="split"):
        task.size("dev")


def test_the_designer_sees_two_words_of_instruction_and_the_question(task):
    question = task.question("train", 3)
    system, user = task.designer_messages(question)
    assert (system.role, system.content) == ("system", "Design a workflow.")
    assert (user.role, user.content) == ("user", question.prompt)
