"""Worked answers and fitting designs for questions of known data sets: what a patient teacher would write.

All of it is read off a record. What is worked out here is checked by the verifier before it is shown to anyone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from metaagentx.tasks.functions import FUNCTIONS
from metaagentx.tasks.gym import Record
from metaagentx.tasks.reference_designs import chain, terms_of
from metaagentx.tools.calculator import calculate

_OPERATION = re.compile(r"(-?\d+) ([+\-*]) (-?\d+)")
_GENERAL = ("a=own()", "a=own()x3", "a=plan();b=own()", "a=own();b=check()", "a=own()x3;b=check()")


def designs(record: Record) -> tuple[str, ...]:
    """Short forms that fit the question, over the roles of `language_palette`; none holds its answer."""
    own = "code" if record.domain == "code" else "solve"
    fitting = [text.replace("own", own) for text in _GENERAL]
    terms = terms_of(record.question)
    if terms is not None and len(terms[1]) > 1:
        fitting += [chain(*terms), chain(*terms).replace("solve(", "calc(")]
    if expression(record) is not None:
        fitting += ["a=calc()", "a=calc();b=check()"]
    return tuple(fitting)


def worked(record: Record) -> str:
    """The whole question worked out, up to the answer but without it being handed in. "" where no steps are known."""
    lesson = _WORKED.get(record.dataset)
    return lesson(json.loads(record.entry)) if lesson else ""


def worked_task(task: str) -> tuple[str, str]:
    """(steps, answer) of one arithmetic operation that a design asks for: "4 - 1"."""
    found = _OPERATION.fullmatch(task)
    if found is None:
        raise ValueError(f"not an operation on two integers: {task!r}")
    answer = calculate(task)
    return f"{task} = {answer}.", answer


def plan(record: Record) -> str:
    """How to go about the question, without doing it."""
    if record.dataset == FUNCTIONS:
        steps = json.loads(record.entry)["metadata"]["sentences"]
        return "Plan: " + " ".join(f"{number}. {step[0].upper()}{step[1:]}." for number, step in enumerate(steps, 1))
    return "Plan: " + _PLANS.get(record.dataset, "1. Note what is given. 2. Work it out. 3. Check the answer.")


def expression(record: Record) -> str | None:
    """What to ask a calculator for; None where that is of no use."""
    write = _EXPRESSIONS.get(record.dataset)
    return None if write is None else write(json.loads(record.entry)["metadata"])


def _sum(entry: Mapping[str, Any]) -> str:
    first, *rest = entry["metadata"]["expression"].split(" ")
    value, steps = int(first), []
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        after = value + int(term) if operator == "+" else value - int(term)
        steps.append(f"{value} {operator} {term} = {after}.")
        value = after
    return " ".join(steps)


def _product(entry: Mapping[str, Any]) -> str:
    left, right = sorted(map(int, entry["metadata"]["expression"].split(" * ")))
    tens, units = right // 10 * 10, right % 10
    if not tens or not units:
        return f"{left} * {right} = {left * right}."
    return f"{left} * {right} = {left} * {tens} + {left} * {units} = {left * tens} + {left * units} = {left * right}."


def _gcd(entry: Mapping[str, Any]) -> str:
    small, large = sorted(entry["metadata"]["numbers"])
    steps = []
    while small:
        steps.append(f"{large} mod {small} = {large % small}.")
        small, large = large % small, small
    return " ".join(steps)


def _lcm(entry: Mapping[str, Any]) -> str:
    left, right = entry["metadata"]["numbers"]
    divisor = calculate(f"gcd({left}, {right})")
    return f"gcd({left}, {right}) = {divisor}. {left} * {right} / {divisor} = {entry['answer']}."


def _spell(entry: Mapping[str, Any]) -> str:
    word = entry["metadata"]["word"]
    return f"Letters: {' '.join(word)}. Backward: {' '.join(word[::-1])}."


def _letters(entry: Mapping[str, Any]) -> str:
    letter, words = entry["metadata"]["target_letter"], entry["metadata"]["span"]
    counts = [f"{word}: {word.lower().count(letter.lower())}." for word in words]
    return " ".join([*counts, f"Together: {entry['answer']}."])


def _equation(entry: Mapping[str, Any]) -> str:
    slope, constant, right = _linear(entry["metadata"])
    name = entry["metadata"]["variable"]
    steps = f"{name} = {right - constant} / {slope} = {entry['answer']}."
    if constant:
        steps = f"{slope}*{name} = {right} - {constant} = {right - constant}. ".replace("- -", "+ ") + steps
    return steps


def _linear(metadata: Mapping[str, Any]) -> tuple[int, int, int]:
    """(slope, constant, right side) of a linear equation in one variable."""
    left, right = metadata["equation"].split(" = ")
    constant, one = (int(calculate(left.replace(metadata["variable"], f"({x})"))) for x in (0, 1))
    return one - constant, constant, int(right)


def _solve_expression(metadata: Mapping[str, Any]) -> str:
    slope, constant, right = _linear(metadata)
    return f"({right} - {constant}) / {slope}".replace("- -", "+ ")


def _reverse(entry: Mapping[str, Any]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(reversed(entry["metadata"]["words"]), 1))


_WORKED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "chain_sum": _sum,
    "products": _product,
    "gcd": _gcd,
    "lcm": _lcm,
    "spell_backward": _spell,
    "letter_counting": _letters,
    "simple_equations": _equation,
    "word_sequence_reversal": _reverse,
}
_EXPRESSIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "chain_sum": lambda metadata: metadata["expression"],
    "products": lambda metadata: metadata["expression"],
    "gcd": lambda metadata: f"gcd({', '.join(map(str, metadata['numbers']))})",
    "lcm": lambda metadata: f"lcm({', '.join(map(str, metadata['numbers']))})",
    "simple_equations": _solve_expression,
}
_PLANS: Mapping[str, str] = {
    "chain_sum": "1. Start with the first number. 2. Add or subtract the next one, from left to right.",
    "products": "1. Split the larger number into tens and units. 2. Multiply both. 3. Add the results.",
    "gcd": "1. Divide the larger number by the smaller one. 2. Go on with the remainder until it is 0.",
    "lcm": "1. Find the greatest common divisor. 2. Multiply the numbers. 3. Divide by it.",
    "spell_backward": "1. Write the letters one by one. 2. Write them from the last to the first.",
    "letter_counting": "1. Count the letter in each word. 2. Add the counts.",
    "simple_equations": "1. Bring the constant to the right side. 2. Divide by the factor of the variable.",
    "word_sequence_reversal": "1. Number the words. 2. Write them from the last to the first.",
}
