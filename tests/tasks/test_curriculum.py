"""What is asked first."""

from __future__ import annotations

from collections import Counter

import pytest

from metaagentx.tasks.curriculum import Curriculum
from metaagentx.tasks.task import Question


class Numbers:
    """Ten questions, three of them easy; in an endless order that tells itself by its seed."""

    name = "numbers"

    def size(self, split: str) -> int:
        return {"train": 10}[split]

    def question(self, split: str, index: int, *, seed: int = 0) -> Question:
        stored = index if seed < 0 else (index + seed) % 10
        return Question(f"{stored}", "easy" if stored % 4 == 0 else "hard", "?", "text")


def ids(curriculum: Curriculum, count: int) -> list[str]:
    return [curriculum.question(number).id for number in range(count)]


def test_the_first_questions_are_of_the_kinds_asked_for_each_as_often() -> None:
    asked = ids(Curriculum(Numbers(), first=9, kinds=("easy",), seed=1), 12)
    assert Counter(asked[:9]) == {"0": 3, "4": 3, "8": 3}
    assert asked[9:] == ids(Curriculum(Numbers(), first=0, kinds=(), seed=1), 12)[9:]


def test_the_order_is_a_function_of_seed_and_number() -> None:
    first, again, other = (ids(Curriculum(Numbers(), first=30, kinds=("easy",), seed=s), 30) for s in (3, 3, 4))
    assert first == again != other


def test_a_kind_that_no_question_has_is_named() -> None:
    with pytest.raises(ValueError, match="no train question is of kind 'odd'; there are easy, hard"):
        Curriculum(Numbers(), first=1, kinds=("odd", "easy"), seed=0)
