import pytest

from metaagentx.tasks.humaneval import convert
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable

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
