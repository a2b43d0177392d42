from __future__ import annotations

import pytest

from metaagentx.policy import tokenizer
from metaagentx.policy.chat import Chat
from metaagentx.rollout.conversation import as_mappings
from metaagentx.tasks.compound import CompoundOptions
from metaagentx.tasks.gym import SPLITS
from metaagentx.tasks.open import open_task
from metaagentx.tasks.options import TaskOptions
from metaagentx.tasks.pieces import team_pieces
from metaagentx.tasks.team_teacher import TeamLessons
from metaagentx.workflow.ir import Limits
from metaagentx.workflow.prompts import Wording

OPTIONS = TaskOptions(
    kind="compound",
    compound=CompoundOptions(pool=80, train=60, validation=6, test=6),
    team_lessons=TeamLessons(main=0.5, alone=0.2),
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return open_task(OPTIONS, tmp_path_factory.mktemp("data"), Limits())


@pytest.fixture(scope="module")
def chat():
    return Chat(tokenizer.build(team_pieces(), "", 128))


def questions(task):
    return [task.question(split, i, seed=-1) for split in SPLITS for i in range(task.size(split))]


def graded(task, prompt, answer):
    found = task.find(prompt)
    return None if found is None else task.grading(found, answer)()


def test_a_part_of_a_question_is_graded_as_a_question(task):
    for question in questions(task)[:60]:
        for part in question.prompt.split("\n\n"):
            assert graded(task, part, "no") == graded(task, part, None) == 0.0
    whole = task.question("test", 0, seed=-1)
    assert task.find(whole.prompt) == whole, "a question of one part is itself before it is a part"


@pytest.mark.parametrize(
    ("prompt", "answer", "grade"),
    [("4 - 7", "-3", 1.0), ("4 - 7", " -3.0", 1.0), ("4 - 7", "3", 0.0), ("gcd(4, 6)", "2", 1.0), ("4 - 7", None, 0.0)],
)
def test_a_calculation_is_graded_by_its_value(task, prompt, answer, grade):
    assert graded(task, prompt, answer) == grade


@pytest.mark.parametrize("prompt", ["7", "-3", "3 +", "a word", "", "1 / 0", "\ud800"])
def test_what_is_no_question_is_not_found(task, prompt):
    assert task.find(prompt) is None


def test_everything_that_a_team_says_and_hears_is_written_in_pieces(task, chat):
    texts = {question.prompt for question in questions(task)}
    texts |= {message.content for lesson in task.demonstrations(0, 0, 1500) for message in lesson.messages}
    texts |= {"Error", Wording().final, "4 - 12", "-3"}
    for text in texts:
        assert chat.tokenizer.unk_token_id not in chat.encode(text), text
        assert chat.decode(chat.encode(text)) == text


def test_a_team_delegates_in_few_tokens(task, chat):
    lessons = task.demonstrations(0, 0, 1500)
    lengths = [len(chat.conversation(as_mappings(lesson.messages))[0]) for lesson in lessons]
    assert max(lengths) <= 112, "questions of three parts, two of them sums step by step"
    assert len(set(team_pieces()) | set(tokenizer.SPECIAL)) == 76


def test_all_three_kinds_of_lessons_are_there(task):
    lessons = task.demonstrations(0, 0, 300)
    assert {(lesson.role, lesson.messages[0].content) for lesson in lessons} == {
        ("main", "Lead the team."),
        ("main", "Work alone."),
        ("sub", "Solve."),
        ("sub", "Use the calculator."),
    }
