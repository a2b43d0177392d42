"""A design that says the answer is found out; one that merely holds numbers is not."""

from __future__ import annotations

import json
import time

import pytest

from metaagentx.tasks.answers import BoxedDelivery
from metaagentx.tasks.gym import Record
from metaagentx.tasks.leak import gives_away
from metaagentx.tasks.record_task import RecordTask

ASKED = "What is 17 + 25, when 7 of them are green?"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("42", "The answer is 42."),
        ("42", "You get \\boxed{42}"),
        ("42", "answer=42"),
        ("42", "It is 42.0, or (42)."),
        ("1000", "Remember 1,000!"),
        ("1,000", "Remember 1000!"),
        ("0.5", "half, \\frac{1}{2}"),
        ("1/2", "that is .50? no, 0.50"),
        ("-12", "Now x = -12."),
        ("Paris", "The capital is PARIS, of course."),
        ("new  york", "Think of New\nYork."),
        ("x^2+1", "the polynomial x^2+1"),
    ],
)
def test_an_answer_is_found_in_any_of_its_spellings(answer: str, text: str) -> None:
    assert gives_away(answer, ASKED, text)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("42", "The answer is 420, 142, 4.2, 42.5, 3.42, 42nd or a42."),
        ("17", "Add 17 and 25."),  # the question says it
        ("25.0", "Add 17 and 25."),
        ("green", "Count the green ones."),
        ("7", "Do 7 rounds of checking"),  # one character
        ("B", "Choose A, B, C or D"),
        ("yes", "Say yes or no"),
        ("10", "10. Add the numbers\n11) Check"),  # numbers of steps
        ("12", "Step 12: check\n - step 12. again"),
        ("-12", "{a}-12"),
        ("-12", "compute 4-12"),
        ("paris", "comparison, parish"),
        ("", "anything"),
        ("42", ""),
        ("a" * 201, "a" * 201),
    ],
)
def test_what_only_looks_like_the_answer_is_none(answer: str, text: str) -> None:
    assert not gives_away(answer, ASKED, text)


@pytest.mark.parametrize(
    "text",
    [
        *("1" * 65_000, "1," * 32_000, "1.1" * 21_000, "-" * 65_000, "\n" * 65_000, " \t#*-" * 13_000),
        *("\\frac{1}" * 8_000, "1,234" * 13_000, "step " * 13_000, "42 " * 21_000, "ab" * 32_000),
    ],
)
def test_hostile_text_is_searched_in_linear_time(text: str) -> None:
    began = time.process_time()
    for answer in ("42.5", "-12", "ab ab", "ababab"):
        gives_away(answer, text, text)
    assert time.process_time() - began < 1


def test_a_task_says_whether_a_text_leaks_and_never_the_answer() -> None:
    def record(domain: str) -> Record:
        entry = json.dumps({"answer": "42", "metadata": {"source_dataset": "reference"}})
        return Record(domain, domain, domain, f"What is 6 times 7, {domain}?", entry)

    task = RecordTask(
        "t",
        {"train": [record("mathematics"), record("code")]},
        deliveries=dict.fromkeys(("mathematics", "code"), BoxedDelivery("")),
        grade=lambda record, answer: lambda: 0.0,
        designer_prompt=lambda question: "",
        teach=lambda seed, number: pytest.fail("nothing is taught here"),
    )
    sums, code = (task.question("train", index, seed=-1) for index in range(2))
    assert task.leaks(sums, "It is 42.") is True
    assert task.leaks(sums, "It is 43.") is False
    assert task.leaks(code, "It is 42.") is False
