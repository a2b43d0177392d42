import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.tasks.answers import BoxedDelivery, SolutionDelivery, TaggedDelivery, last_boxed, normalise

BOXED, TAGGED, SOLUTION = BoxedDelivery(""), TaggedDelivery(""), SolutionDelivery("")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5} no, \boxed{7}", "7"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{\boxed{6}}", "6"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"<think>\boxed{1}</think> it is \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> no idea", None),
        (r"\boxed{ }", None),
        ("42", None),
    ],
)
def test_the_answer_is_the_last_balanced_box_of_the_visible_message(text, answer):
    assert BOXED.extract(text) == answer


def slow_last_boxed(text):
    """Oracle: tries every box from the last to the first, scanning for its closing brace."""
    starts = [i for i in range(len(text)) if text.startswith("\\boxed{", i)]
    for start in reversed(starts):
        depth, i = 1, start + 7
        while i < len(text):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                return text[start + 7 : i].strip() or None
            i += 1
    return None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "a", " "]), max_size=12).map("".join))
def test_last_boxed_agrees_with_a_scan_from_every_box(text):
    assert last_boxed(text) == slow_last_boxed(text)


@pytest.mark.parametrize(
    "unit",
    [
        "\\boxed{",
        "\\boxed{}",
        "\\boxed ",
        "{",
        "\\text{",
        "<delivery>",
        "</answer>",
        "9",
        "1,",
        "<solution>",
        "```\n",
        "\n",
    ],
)
def test_hostile_text_is_read_in_linear_time(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    for delivery in (BOXED, TAGGED, SOLUTION):
        delivery.extract(text + "}" * 100_000)
        delivery.normalise(text)
        delivery.shorten(text)
    assert time.perf_counter() - start < 6


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("+07", "7"),
        ("7.0", "7"),
        ("14/2", "7"),
        ("-0", "0"),
        (" $1,234$. ", "1234"),
        ("1/2", "0.5"),
        (r"-\frac{1}{2}", "-0.5"),
        ("2/6", "1/3"),
        ("0.050", "0.05"),
        (r"\text{ Tac }", "tac"),
        ("New   York", "new york"),
        ("1/0", "1/0"),
        ("12,34", "12,34"),
        ("-.50", "-0.5"),
        (".", ""),
        ("/2", "/2"),
    ],
)
def test_equal_answers_have_one_spelling(answer, normal):
    assert normalise(answer) == normal


@settings(max_examples=100, deadline=None)
@given(st.fractions(max_denominator=10_000))
def test_normal_forms_of_numbers_are_equal_exactly_when_the_numbers_are(value):
    assert normalise(f"{value.numerator * 3}/{value.denominator * 3}") == normalise(str(value))
    assert Fraction(normalise(str(value))) == value


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_reading_and_normalising_never_raise_and_settle(text):
    for delivery in (BOXED, TAGGED, SOLUTION):
        delivery.extract(text)
        delivery.shorten(text)
    assert isinstance(normalise(text), str)


def test_shortening_prefers_the_delivery_block_then_the_answer_then_both_ends():
    assert BOXED.shorten(r"long <delivery>3 + 4 = 7</delivery> \boxed{7}") == "3 + 4 = 7"
    assert BOXED.shorten(r"long \boxed{7}") == "7"
    shown = BoxedDelivery(instruction="", limit=20).shorten("a" * 50 + "z" * 50)
    assert len(shown) <= 20
    assert shown.startswith("aaa")
    assert shown.endswith("zzz")


def test_tagged_answers_are_the_last_closed_tag():
    assert TAGGED.extract("<answer>Rome</answer> or <answer> Paris </answer> <answer>") == "Paris"
    assert TAGGED.extract("<answer>Rome") is None
    assert TAGGED.extract("</answer>") is None


PROGRAM = "def f(x):\n    return x"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"<solution>\n{PROGRAM}\n</solution>", PROGRAM),
        (f"<solution>```python\n{PROGRAM}\n```</solution>", PROGRAM),
        (f"<solution>\n```python\n{PROGRAM}\n```\n</solution>", PROGRAM),
        (f"<solution>old</solution> better: <solution>{PROGRAM}</solution>", PROGRAM),
        (f"Here:\n```python\nold\n```\nand\n```py\n{PROGRAM}\n```\nDone.", PROGRAM),
        (f"```\n{PROGRAM}\n```", PROGRAM),
        (f"```python\n{PROGRAM}\n```\n```json\n{{}}\n```", PROGRAM),
        (f"<think><solution>no</solution></think>```python\n{PROGRAM}\n```", PROGRAM),
        (f"```python\n{PROGRAM}", None),
        ("<solution>\n\n</solution>", None),
        (PROGRAM, None),
    ],
)
def test_a_program_is_the_last_solution_or_the_last_fenced_block(text, program):
    assert SOLUTION.extract(text) == program


def test_the_first_line_of_a_program_keeps_its_indentation():
    assert SOLUTION.extract("<solution>\n    x = 1\n</solution>") == "    x = 1"


def test_equal_programs_are_one_vote_whatever_their_white_space():
    assert SOLUTION.normalise(f"\n{PROGRAM}   \r\n\n") == SOLUTION.normalise(PROGRAM) == PROGRAM
    assert SOLUTION.normalise("def f(x):\n  return x") != PROGRAM
