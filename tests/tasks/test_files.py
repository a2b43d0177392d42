import json

import pytest

from metaagentx.tasks.files import BadRow, FileOptions, read_splits
from metaagentx.tasks.open import open_task
from metaagentx.tasks.options import TaskOptions
from metaagentx.workflow.ir import Limits

ROW = {"question": "What is 1 + 1?", "answer": 2, "domain": "mathematics"}
CODE = {
    "question": "Write f that doubles.",
    "domain": "code",
    "entry_point": "f",
    "tests": [{"arguments": [2], "result": 4}, {"arguments": [{"tuple": [1]}], "result": {"tuple": [1, 1]}}],
}


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


def test_rows_become_a_task(tmp_path):
    train = write(tmp_path / "train.jsonl", ROW, "", {**ROW, "question": "Who?", "answer": "Ada", "domain": "qa"})
    test = write(tmp_path / "test.jsonl", {**ROW, "question": "2 + 2?", "answer": "4.0", "id": "four", "kind": "easy"})
    options = TaskOptions(kind="files", files=FileOptions(train=train, test=test))
    task = open_task(options, tmp_path, Limits())
    assert [task.size(split) for split in ("train", "validation", "test")] == [2, 0, 1]
    four = task.question("test", 0, seed=-1)
    assert (four.id, four.kind, four.domain) == ("four", "easy", "mathematics")
    assert task.grade(four, "4") == task.grade(four, "08/2") == 1.0
    assert task.grade(four, "5") == task.grade(four, None) == 0.0
    who = task.find("who?")
    assert task.delivery(who).extract("It was <answer>Ada</answer>") == "Ada"
    assert task.grade(who, " ADA ") == 1.0
    with pytest.raises(IndexError, match="no validation questions"):
        task.question("validation", 0)
    with pytest.raises(ValueError, match=r"files\.demonstrations"):
        task.demonstrations(0, 0, 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not a line of JSON"),
        ("[" * 100_000, "not a line of JSON"),
        ("[]", "must be an object, not list"),
        ({**ROW, "solution": "x"}, "unknown key 'solution'"),
        ({**ROW, "question": " "}, "question must be a text"),
        ({**ROW, "answer": None}, "answer must be a text or a number"),
        ({**ROW, "answer": True}, "answer must be a text or a number"),
        ({**ROW, "domain": "maths"}, "domain must be one of mathematics"),
        ({**ROW, "id": 7}, "id must be a text"),
        ({**ROW, "tests": []}, "tests is for the domain 'code'"),
        ({**CODE, "answer": "x"}, "code is graded by tests"),
        ({**CODE, "tests": []}, "tests must be a list"),
        ({**CODE, "tests": [{"arguments": [1]}]}, r"tests\[0\] must be"),
        ({**CODE, "tests": [{"arguments": 1, "result": 1}]}, r"tests\[0\]\.arguments must be a list"),
        ({**CODE, "entry_point": "f()"}, "entry_point must be a function's name"),
    ],
)
def test_a_bad_row_is_an_error_with_file_and_line(tmp_path, row, message):
    path = write(tmp_path / "train.jsonl", ROW, row)
    with pytest.raises(BadRow, match=rf"train\.jsonl:2: {message}"):
        read_splits(FileOptions(train=path))


def test_a_question_may_not_be_in_two_places(tmp_path):
    train = write(tmp_path / "train.jsonl", ROW)
    test = write(tmp_path / "test.jsonl", {**ROW, "question": "x"}, {**ROW, "question": "  what IS 1 + 1? "})
    with pytest.raises(BadRow, match=r"test\.jsonl:2: the same question as .*train\.jsonl:1"):
        read_splits(FileOptions(train=train, test=test))
    twice = write(tmp_path / "twice.jsonl", {**ROW, "id": "a"}, {**ROW, "question": "y", "id": "a"})
    with pytest.raises(BadRow, match=r"twice\.jsonl:2: the same id as .*twice\.jsonl:1"):
        read_splits(FileOptions(train=twice))


def test_missing_files_and_no_files_are_errors(tmp_path):
    with pytest.raises(BadRow, match=r"none\.jsonl: cannot be read"):
        read_splits(FileOptions(train=str(tmp_path / "none.jsonl")))
    with pytest.raises(ValueError, match="give at least one path"):
        read_splits(FileOptions())


def test_code_of_a_file_is_graded_by_its_tests(tmp_path):
    path = write(tmp_path / "train.jsonl", CODE)
    task = open_task(TaskOptions(kind="files", files=FileOptions(train=path)), tmp_path, Limits())
    question = task.question("train", 0)
    assert task.grade(question, "def f(x): return x * 2") == 1.0
    assert task.grade(question, "def f(x): return [4] * 2") == 0.0


def test_mathematics_may_be_equal_beyond_its_normal_form(tmp_path):
    pytest.importorskip("math_verify")
    path = write(tmp_path / "train.jsonl", {**ROW, "answer": "2*x + 2"}, {**ROW, "question": "Who?", "domain": "qa"})
    for grading, grade in (("match", 0.0), ("equivalence", 1.0)):
        task = open_task(TaskOptions(kind="files", files=FileOptions(train=path, grading=grading)), tmp_path, Limits())
        question = task.find(ROW["question"])
        assert task.grade(question, "2(x + 1)") == grade
        assert task.grade(question, "2(x + 2)") == 0.0
        assert task.grade(task.find("Who?"), "3 - 1") == 0.0
