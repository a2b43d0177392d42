from __future__ import annotations

import dataclasses
import json

import pytest

from metaagentx.tasks.answers import BoxedDelivery
from metaagentx.tasks.compound import CompoundOptions, compose, join, judge, parts_of
from metaagentx.tasks.gym import Record, generate, score, split_of
from metaagentx.tasks.teacher import TeacherOptions
from metaagentx.tasks.team_teacher import CALCULATOR, SOLVER, TeamLessons, demonstrate_team, sums_apart
from metaagentx.workflow.tool_calls import read_tool_calls

OPTIONS = CompoundOptions(pool=80, train=60, validation=6, test=6)
QUIET = TeamLessons(noise=0)


@pytest.fixture(scope="module")
def pools():
    return generate(OPTIONS.pools)


@pytest.fixture(scope="module")
def records(pools):
    return compose(OPTIONS, pools)


def test_questions_are_distinct_and_numbers_of_parts_take_turns(records):
    assert {split: len(rows) for split, rows in records.items()} == {"train": 180, "validation": 18, "test": 18}
    assert [record.kind for record in records["test"][:6]] == ["one", "two", "three"] * 2
    texts = [record.question for rows in records.values() for record in rows]
    assert len(set(texts)) == len(texts)


def test_every_part_is_of_its_questions_split(records):
    for split, rows in records.items():
        assert {split_of(text) for record in rows for text, _, _ in parts_of(record)} == {split}


def test_the_same_options_give_the_same_questions(pools, records):
    assert compose(OPTIONS, pools) == records
    other = compose(dataclasses.replace(OPTIONS, seed=1), pools)
    assert other["test"] != records["test"]


def test_an_answer_is_right_if_every_part_is(records):
    for record in records["test"]:
        parts = [answer for _, answer, _ in parts_of(record)]
        assert judge(record, record.answer) == 1.0
        assert judge(record, ",".join(parts)) == 1.0, "spaces do not count"
        assert judge(record, ", ".join([*parts, parts[0]])) == 0.0
        assert judge(record, "") == 0.0
        for place in range(len(parts)):
            wrong = [*parts[:place], "no" + parts[place], *parts[place + 1 :]]
            assert judge(record, ", ".join(wrong)) == 0.0


def test_too_small_a_pool_is_said(pools):
    with pytest.raises(ValueError, match=r"compound\.train: only \d+ distinct questions of 1 parts"):
        compose(dataclasses.replace(OPTIONS, train=400), pools)


@pytest.mark.parametrize("bad", [{"parts": ()}, {"parts": (2, 1)}, {"parts": (0, 1)}, {"parts": (5,)}, {"pool": 0}])
def test_bad_options_are_named(bad):
    with pytest.raises(ValueError, match=f"compound.{next(iter(bad))}"):
        CompoundOptions(**bad)


def lessons(records, pools, options, count=300):
    parts = sums_apart(pools["train"])
    return [demonstrate_team(records["train"], parts, options, TeacherOptions(), 0, number) for number in range(count)]


def test_a_main_agents_lesson_is_a_rollout_that_a_team_could_have_had(records, pools):
    by_question = {record.question: record for record in records["train"]}
    seen = set()
    for lesson in lessons(records, pools, QUIET):
        if lesson.role != "main":
            continue
        _, user, *rest = lesson.messages
        record = by_question[user.content]
        while rest[0] is not rest[-1]:
            calls = read_tool_calls(rest.pop(0).content, "main", (CALCULATOR, SOLVER), lambda text: None)
            for call in calls:
                reply = BoxedDelivery(instruction="").extract(rest.pop(0).content)
                task = call.arguments["task"]
                part = next((part for part in pools["train"] if part.question == task), None)
                expected = str(eval(task)) if part is None else part.answer  # "4 - 1", of our own making
                assert score(part.entry, reply) == 1.0 if part else reply == expected
                seen.add((call.name, part.dataset if part else "step"))
        assert judge(record, BoxedDelivery(instruction="").extract(rest[0].content)) == 1.0
    assert {
        (CALCULATOR, "gcd"),
        (SOLVER, "gcd"),
        (SOLVER, "step"),
        (SOLVER, "chain_sum"),
        (CALCULATOR, "chain_sum"),
    } < seen


def test_a_share_of_the_sub_agents_lessons_are_on_sums(records, pools):
    subs = [d for d in lessons(records, pools, TeamLessons(main=0.0, sums=0.7), 500) if d.role == "sub"]
    assert abs(sum(lesson.kind == "sum3" for lesson in subs) / len(subs) - 0.7) < 0.08


def test_noise_spoils_as_many_answers_as_it_says(records, pools):
    by_question = {record.question: record for record in records["train"]}
    mains = [d for d in lessons(records, pools, TeamLessons(noise=0.3), 600) if d.role == "main"]
    wrong = [
        judge(by_question[d.messages[1].content], BoxedDelivery(instruction="").extract(d.messages[-1].content)) == 0
        for d in mains
    ]
    assert abs(sum(wrong) / len(wrong) - 0.3) < 0.08


def test_lessons_are_functions_of_seed_and_number(records, pools):
    assert lessons(records, pools, QUIET, 20) == lessons(records, pools, QUIET, 20)
    assert {lesson.role for lesson in lessons(records, pools, QUIET, 20)} == {"main", "sub"}


def test_a_record_that_its_verifiers_refuse_is_no_lesson(records, pools):
    entry = json.loads(records["train"][0].entry)
    entry["answer"] = "nothing"
    broken = dataclasses.replace(records["train"][0], entry=json.dumps(entry))
    with pytest.raises(ValueError, match="refuse its own answer 'nothing'"):
        demonstrate_team([broken], sums_apart(pools["train"]), TeamLessons(main=1.0), TeacherOptions(), 0, 0)


def test_one_question_of_several_reads_as_its_parts():
    parts = [
        Record(str(i), "k", "text", f"q{i}", json.dumps({"answer": f"a{i}", "metadata": {"source_dataset": "d"}}))
        for i in range(2)
    ]
    assert parts_of(join(parts)) == [("q0", "a0", "d"), ("q1", "a1", "d")]
    assert (join(parts).question, join(parts).answer) == ("q0\n\nq1", "a0, a1")
