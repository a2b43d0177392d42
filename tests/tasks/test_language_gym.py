import collections
import dataclasses
import math
import re

import pytest

from metaagentx.tasks import lessons
from metaagentx.tasks.functions import FUNCTIONS
from metaagentx.tasks.gym import SPLITS, Family, GymOptions, split_of
from metaagentx.tasks.language_gym import LANGUAGE_FAMILIES
from metaagentx.tasks.language_palette import PALETTE, short_prompt
from metaagentx.tasks.language_teacher import LessonOptions
from metaagentx.tasks.open import open_task, surroundings
from metaagentx.tasks.options import TaskOptions
from metaagentx.tasks.script_prompt import script_prompt
from metaagentx.tasks.task import Task
from metaagentx.tools import jail
from metaagentx.tools.sandbox import SandboxUnavailable
from metaagentx.workflow.ir import Design, Limits
from metaagentx.workflow.short import parse_short

SMALL = GymOptions(families=LANGUAGE_FAMILIES, train=30, validation=3, test=3)
OPTIONS = TaskOptions(kind="gym", gym=SMALL)
TOOLS = frozenset({"calculator"})


@pytest.fixture(scope="module")
def task(data_dir):
    try:
        return open_task(OPTIONS, data_dir, Limits())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def lessons_given(task):
    return task.demonstrations(0, 0, 1500)


def records(task):
    return task._splits["train"]


def test_every_kind_has_its_questions_in_every_split(task):
    accepted: Task = task
    assert accepted.name == "gym"
    for split in SPLITS:
        asked = [task.question(split, i, seed=-1) for i in range(task.size(split))]
        assert len({question.kind for question in asked}) == 9
        assert all(split_of(question.prompt) == split for question in asked)


def test_every_right_answer_handed_in_gets_its_point(task):
    verdicts = []
    for record in records(task):
        question = task.find(record.question)
        delivery = task.delivery(question)
        reply = (
            f"<solution>\n{record.answer}\n</solution>" if record.domain == "code" else f"\\boxed{{{record.answer}}}"
        )
        verdicts.append(task.grading(question, delivery.extract(reply)))
    assert all(verdict() == 1.0 for verdict in verdicts)


def test_wrong_answers_get_none(task):
    for index in range(task.size("test")):
        question = task.question("test", index, seed=-1)
        if question.domain != "code":
            assert task.grade(question, "-12345") == task.grade(question, None) == 0.0


def test_a_worked_answer_is_known_for_every_family_and_ends_at_the_answer(task, data_dir):
    for record in records(task):
        if record.dataset == FUNCTIONS:
            assert len(lessons.plan(record)) > len("Plan: ")
            continue
        steps = lessons.worked(record)
        assert steps
        if record.domain == "mathematics" and record.dataset != "gcd":
            assert steps.endswith(f"{record.answer}.")
        expression = lessons.expression(record)
        if expression is not None:
            output = surroundings(OPTIONS, data_dir).toolbox.tools["calculator"].function(expression=expression)
            assert task.grade(task.find(record.question), output) == 1.0


def test_every_lesson_that_answers_the_question_is_right(task, lessons_given):
    checked = collections.Counter()
    known = {record.question.strip(): record for record in records(task)}
    for lesson in lessons_given:
        if lesson.role == "designer":
            continue
        asked = lesson.messages[1].content
        found = [record for text, record in known.items() if asked.startswith(text)]
        question = task.find(max(found, key=lambda record: len(record.question)).question) if found else None
        answer = None if question is None else task.delivery(question).extract(lesson.messages[-1].content)
        if answer is not None and (question.domain != "code" or checked["code"] < 5):
            assert task.grade(question, answer) == 1.0, lesson
            checked[question.domain] += 1
    assert checked["mathematics"] > 300
    assert checked["text"] > 100
    assert checked["code"] == 5


def test_designs_are_valid_evenly_drawn_and_hold_no_number_that_the_question_does_not(task, lessons_given):
    drawn = collections.Counter()
    for lesson in lessons_given:
        if lesson.role != "designer":
            continue
        system, user, last = lesson.messages
        assert (
            system.content
            == short_prompt(("calculator",))
            == task.designer_messages(task.find(user.content))[0].content
        )
        design = parse_short(last.content, palette=PALETTE, limits=Limits(), tools=TOOLS)
        assert isinstance(design, Design)
        assert design.remarks == ()
        numbers = re.findall(r"(?<![x\d])\d+", last.content)  # but those of votes
        assert set(numbers) <= set(re.findall(r"\d+", user.content))
        if lesson.kind in ("spell", "letters", "reverse"):
            drawn[last.content] += 1
    total = sum(drawn.values())
    assert len(drawn) == 5
    for count in drawn.values():
        assert abs(count / total - 0.2) < 4 * math.sqrt(0.2 * 0.8 / total)


def test_lessons_hold_what_agents_see_after_others_and_with_tools(lessons_given):
    shapes = collections.Counter()
    for lesson in lessons_given:
        if lesson.role == "executor":
            shapes["after"] += "Now give your own solution." in lesson.messages[1].content
            shapes["tool"] += any(message.role == "tool" for message in lesson.messages)
            shapes["task"] += len(lesson.messages[1].content) < 12
            shapes["plan"] += lesson.messages[-1].content.startswith("Plan: ")
    assert min(shapes.values()) > 20, shapes


def test_those_who_check_are_shown_wrong_answers_too(task, data_dir):
    misled = dataclasses.replace(OPTIONS, lessons=LessonOptions(designer=0, misled=1.0))
    found = 0
    for lesson in open_task(misled, data_dir, Limits()).demonstrations(0, 0, 300):
        if lesson.kind == "spell" and "[a]:" in lesson.messages[1].content and "Check" in lesson.messages[0].content:
            shown = lesson.messages[1].content.split("[a]:\n")[1].split("\n")[0]
            answer = lesson.messages[-1].content.split("\\boxed{")[1].rstrip("}")
            assert shown != answer
            found += 1
    assert found


def test_a_demonstration_is_a_function_of_seed_and_number_alone(task):
    whole = task.demonstrations(3, 0, 40)
    assert [*task.demonstrations(3, 0, 15), *task.demonstrations(3, 15, 25)] == list(whole)
    assert whole != task.demonstrations(4, 0, 40)


def test_large_models_are_shown_the_script_prompt_and_have_no_teacher(data_dir):
    families = tuple(family for family in LANGUAGE_FAMILIES if family.domain != "code")
    gym = GymOptions(families=families[:1], train=10, validation=2, test=2)
    options = TaskOptions(kind="gym", gym=gym, prompts="full")
    task = open_task(options, data_dir, Limits(agents=7, model_calls=30))
    question = task.question("train", 0)
    tools = {name: tool.description for name, tool in surroundings(options, data_dir).toolbox.tools.items()}
    assert task.designer_messages(question)[0].content == script_prompt(tools, agents=7, calls=30)
    assert "<delivery>" in task.delivery(question).instruction
    with pytest.raises(ValueError, match=r"files\.demonstrations"):
        task.demonstrations(0, 0, 1)


def test_surroundings_belong_to_the_kind(data_dir):
    assert set(surroundings(TaskOptions(), data_dir).palette) == {"solve", "tool"}
    around = surroundings(OPTIONS, data_dir)
    assert set(around.palette) == {"solve", "plan", "code", "check", "calc"}
    assert around.toolbox.names() == {tool for role in around.palette.values() for tool in role.tools}
    assert set(around.tool_texts) == around.toolbox.names()


def test_a_family_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"family\.dataset"):
        Family("x", "no_such_data", (), "mathematics")


def test_a_machine_that_cannot_isolate_is_an_error_before_anything_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(jail, "bubblewraps", list)
    with pytest.raises(SandboxUnavailable, match="Three ways out"):
        open_task(OPTIONS, tmp_path, Limits())
    assert list(tmp_path.iterdir()) == []
