"""The calculator is exact, bounded, and raises nothing but its own error."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaagentx.tools.calculator import OPERATIONS, calculate, make_calculator
from metaagentx.tools.tool import ToolError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("gcd(26, 38)", "2"),
        ("12 * 34", "408"),
        ("-(3 - 10) // 2", "3"),
        ("7 % 3 + 2 ** 5", "33"),
        ("2^10", "1024"),
        ("1/3", "1/3"),
        ("1/8", "0.125"),
        ("0.1 + 0.2", "0.3"),
        ("1e3 / 4", "250"),
        ("3 × 4 ÷ 2", "6"),
        ("lcm(4, 6, 10)", "60"),
        ("abs(-2.5)", "2.5"),
        ("max(1, 2/3, min(5, 4))", "4"),
        ("sqrt(16/9)", "4/3"),
        ("sqrt(2)", "1.414213562373095"),
        ("2 ** 0.5", "1.414213562373095"),
        ("2 ** -3", "0.125"),
        ("(-1) ** (9 ** 99)", "-1"),
        ("0 ** 0", "1"),
        ("floor(-1/2) + ceil(1/2) + round(2/3)", "1"),
        ("factorial(5) / comb(5, 2)", "12"),
        ("sum(1, 2, 3)", "6"),
        ("1 / 7 ** 30", "0"),
    ],
)
def test_the_value_of_an_expression(expression: str, value: str) -> None:
    assert calculate(expression) == value


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.sampled_from(["+", "-", "*", "//", "%"]))
def test_integers_are_calculated_as_python_does(a: int, b: int, sign: str) -> None:
    if b == 0 and sign in ("//", "%"):
        return
    expected = {"+": a + b, "-": a - b, "*": a * b, "//": b and a // b, "%": b and a % b}[sign]
    assert calculate(f"({a}) {sign} ({b})") == str(expected)
    assert calculate(f"gcd({a}, {b})") == str(math.gcd(a, b))


@settings(max_examples=50, deadline=None)
@given(st.decimals(-(10**6), 10**6, places=4, allow_nan=False))
def test_decimals_are_exact(number) -> None:
    assert Fraction(calculate(f"{number} * 3")) == Fraction(number) * 3


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("9**9**9**9", "too large"),
        ("1e999", "too large"),
        ("9" * 400 + "*" + "9" * 50 + "**31", "too large"),
        ("factorial(10**9)", "from 0 to 400"),
        ("comb(500, 2)", "from 0 to 400"),
        ("gcd(1/2, 3)", "integers"),
        ("sqrt(-1)", "not real"),
        ("2 ** (1/3)", "exponent"),
        ("abs(1, 2)", "1 arguments, not 2"),
        ("", "not an arithmetic"),
        ("1 +", "not an arithmetic"),
        ("1if 2else 3", "not an arithmetic"),
        ("'a' * 3", "not an arithmetic"),
        ("x + 1", "'x' is not arithmetic"),
        ("True + 1", "not arithmetic"),
        ("1 if 1 else 2", "not arithmetic"),
        ("__import__(1)", "not arithmetic"),
        ("(1).real", "not an"),
        ("gcd(*(1, 2))", "not arithmetic"),
        ("-" * 450 + "1", "nested"),
        ("(" * 249 + "1" + ")" * 249, "not an arithmetic"),
        ("1" + " + 1" * 124, "nested"),
        ("1" * 501, "at most 500"),
    ],
)
def test_what_is_wrong_is_said(expression: str, error: str) -> None:
    with pytest.raises(ToolError, match=error):
        calculate(expression)


def test_only_allowed_operations_are_available_and_the_error_names_them() -> None:
    tiny = make_calculator(frozenset({"gcd", "*"}))
    assert tiny.function(expression="gcd(4, 6) * -3") == "-6"
    for expression in ("1 + 1", "lcm(2, 3)", "2 ** 3", "1 - 1"):
        with pytest.raises(ToolError, match=r"not available; there is \*, gcd"):
            tiny.function(expression=expression)
    with pytest.raises(ValueError, match="'sinh'"):
        make_calculator(frozenset({"sinh"}))


pieces = st.sampled_from(
    [
        *OPERATIONS,
        *"0123456789()+-*/%., ^_",
        "9" * 40,
        "e",
        "**",
        "1e300",
        "sqrt(",
        "lcm(",
        "\x00",
        "é",
        "²",
        "\n",
        "'",
        "[",
        "**9" * 9,
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join)))
def test_nothing_that_is_written_crashes_or_holds_up_the_calculator(expression: str) -> None:
    started = time.process_time()
    try:
        text = calculate(expression)
    except ToolError as error:
        text = str(error)
    assert 0 < len(text) < 3000
    assert time.process_time() - started < 0.5
