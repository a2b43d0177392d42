import json

import pytest

from metaagentx.tasks.functions import CASES, EXAMPLES, PIECES, Functions, Problem
from metaagentx.tasks.grading import Grader
from metaagentx.tasks.gym import Family, GymOptions, Record, generate, split_of
from metaagentx.tools.sandbox import Sandbox, SandboxOptions, SandboxUnavailable
from metaagentx.tools.spelling import spell

CODE = Family("code", "functions", (("min_steps", 1), ("max_steps", 2)), "code")


@pytest.fixture(scope="module")
def grader():
    try:
        return Grader(Sandbox(SandboxOptions(seconds=5, cpu_seconds=2)), None)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def records():
    return generate(GymOptions(families=(CODE,), train=60, validation=5, test=5))


def test_the_program_of_every_piece_does_what_its_words_mean(grader):
    made = []
    for number, piece in enumerate(PIECES):
        for k in (piece.choices[0], piece.choices[-1]):
            problem = Problem(((piece, k),))
            tests = [{"arguments": [spell(x)], "result": spell(y)} for x, y in problem.cases()]
            entry = {"answer": problem.solution(), "metadata": {"entry_point": problem.name, "tests": tests}}
            made.append(Record(f"{number}-{k}", "code", "code", "", json.dumps(entry)))
    grader.check_programs(made)


def test_a_wrong_reference_is_named(grader, records):
    record = records["train"][0]
    entry = json.loads(record.entry)
    entry["metadata"]["tests"][3]["result"] = "something else"
    wrong = Record("the-wrong-one", "code", "code", record.question, json.dumps(entry))
    with pytest.raises(ValueError, match="the-wrong-one"):
        grader.check_programs([record, wrong])


def test_a_problem_shows_two_examples_and_hides_its_cases(records):
    for record in records["train"]:
        metadata = json.loads(record.entry)["metadata"]
        assert record.question.count(">>> ") == EXAMPLES
        assert len(metadata["tests"]) == CASES
        shown = [line.strip() for line in record.question.splitlines() if line.strip().startswith(">>>")]
        for test in metadata["tests"]:
            assert f">>> {metadata['entry_point']}({test['arguments'][0]!r})" not in shown
        assert f"def {metadata['entry_point']}(" in record.question


def test_a_constant_is_no_solution(grader, records):
    for record in records["test"]:
        metadata = json.loads(record.entry)["metadata"]
        constant = metadata["tests"][-1]["result"]
        assert grader(record, f"def {metadata['entry_point']}(x): return {constant!r}")() == 0.0


def test_the_reference_is_right_and_broken_programs_are_not(grader, records):
    for record in records["test"][:2]:
        name = json.loads(record.entry)["metadata"]["entry_point"]
        assert grader(record, record.answer)() == 1.0
        assert grader(record, f"import os\n{record.answer}\nos._exit(0)")() == 0.0
        assert grader(record, record.answer.replace(f"def {name}", "def other"))() == 0.0
        assert grader(record, "")() == 0.0


def test_a_class_that_equals_everything_is_wrong(grader, records):
    record = records["test"][0]
    name = json.loads(record.entry)["metadata"]["entry_point"]
    yes = "class Yes(str):\n    def __eq__(self, other): return True\n    __hash__ = str.__hash__\n"
    assert grader(record, f"{yes}\ndef {name}(x): return Yes()")() == 0.0


def test_a_problem_is_a_function_of_its_pieces_and_stays_in_its_split(records):
    again = generate(GymOptions(families=(CODE,), train=30, validation=5, test=5, seed=9))
    known = {record.question: (split, record) for split, found in records.items() for record in found}
    common = 0
    for split, found in again.items():
        for record in found:
            assert split_of(record.question) == split
            if record.question in known:
                common += 1
                assert known[record.question][0] == split
                assert known[record.question][1].entry.replace(record.id, "") == record.entry.replace(record.id, "")
    assert common


def test_items_depend_on_seed_and_index_alone():
    first, second = Functions(3), Functions(3)
    assert first[5] == second[5]
    assert first[5] != Functions(4)[5]


def test_bad_parameters_are_refused():
    with pytest.raises(ValueError, match=r"family\.parameters"):
        Family("code", "functions", (("min_steps", 3), ("max_steps", 2)), "code")
