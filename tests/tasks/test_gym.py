import inspect
import re
from collections import Counter

import pytest
from reasoning_gym.factory import DATASETS

from metaagentx.tasks.gym import EXECUTES_ANSWERS, TINY_FAMILIES, Family, GymOptions, digest, generate, score, split_of
from tests.tasks.conftest import SMALL


def test_no_question_appears_twice_in_any_split():
    questions = [digest(record.question) for rows in generate(SMALL).values() for record in rows]
    assert len(questions) == len(set(questions)) == 4 * 120


def test_other_sizes_and_seeds_never_move_a_question_between_splits():
    home = {}
    for options in (
        SMALL,
        GymOptions(train=300, validation=40, test=40),
        GymOptions(train=50, validation=9, test=9, seed=3),
    ):
        for split, rows in generate(options).items():
            for record in rows:
                assert home.setdefault(record.question, split) == split == split_of(record.question)


def test_a_larger_split_starts_with_the_questions_of_the_smaller():
    small, large = generate(SMALL)["train"], generate(GymOptions(train=300, validation=40, test=40))["train"]
    assert large[: len(small)] == small


def test_kinds_and_the_families_of_a_kind_take_equal_parts():
    for rows in generate(SMALL).values():
        assert [record.kind for record in rows[:4]] == ["sum3", "sum5", "tool", "spell"]
        assert len(set(Counter(record.kind for record in rows).values())) == 1
        tools = Counter(record.dataset for record in rows if record.kind == "tool")
        assert tools["gcd"] == tools["products"]


def test_every_answer_gets_full_marks_and_no_partial_credit_is_given():
    for rows in generate(SMALL).values():
        for record in rows:
            assert score(record.entry, record.answer) == 1.0
            assert score(record.entry, f"{record.answer} {record.answer}") == 0.0  # half marks of reasoning-gym


def test_seeds_next_to_each_other_share_no_stream():
    first, second = (
        [record.question for record in generate(GymOptions(train=50, validation=5, test=5, seed=seed))["train"]]
        for seed in (0, 1)
    )
    assert len(set(first) & set(second)) < 20


def test_a_family_without_enough_questions_is_named():
    tight = GymOptions(families=TINY_FAMILIES[:1], train=1, validation=600, test=1)
    with pytest.raises(ValueError, match="family 'sum3'"):
        generate(tight)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"train": 0}, "gym.train"),
        ({"test": -1}, "gym.test"),
        ({"seed": -1}, "gym.seed"),
        ({"families": ()}, "gym.families"),
    ],
)
def test_bad_options_name_their_field(values, field):
    with pytest.raises(ValueError, match=field):
        GymOptions(**values)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("x", "no_such_set", (), "text"), "family.dataset"),
        (("x", "gcd", (("min_valu", 1),), "mathematics"), "family.parameters"),
        (("x", "gcd", (("min_value", 0),), "mathematics"), "family.parameters"),
        (("x", "gcd", (), "maths"), "family.domain"),
        (("x y", "gcd", (), "mathematics"), "family.kind"),
    ],
)
def test_bad_families_name_their_field(values, field):
    with pytest.raises(ValueError, match=field):
        Family(*values)


def test_verifiers_that_run_an_answer_as_code_are_refused():
    executing = re.compile(r"\b(eval|exec|parse_expr|sympify)\(")
    found = {name for name, (cls, _) in DATASETS.items() if executing.search(inspect.getsource(cls.score_answer))}
    assert found - {"number_sorting"} == EXECUTES_ANSWERS  # that one evaluates its own answer
    with pytest.raises(ValueError, match=r"'countdown' is refused: its verifier runs answers as Python code"):
        Family("countdown", "countdown", (), "mathematics")
