"""The teacher: conversations to imitate before reinforcement learning, for both roles. It errs on purpose.

A policy that imitated a perfect teacher would leave nothing to learn. So one answer in a few has one wrong character
(`TeacherOptions`), and designs are drawn almost without regard to the question: the cold start knows how to write a
design and how to answer, not which design to write. What is right is checked by the verifier before noise is applied.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from metaagentx.tasks.gym import Record, score
from metaagentx.tasks.palette import DESIGNER_PROMPT, TINY_OPERATIONS, TINY_PALETTE
from metaagentx.tasks.reference_designs import APPROPRIATE, reference_designs, terms_of
from metaagentx.tasks.task import Demonstration
from metaagentx.tools.calculator import calculate
from metaagentx.workflow.protocol import Message

TOOL_CALL = ('<tool_call>{"name": "calculator", "arguments": {"expression": "', '"}}</tool_call>')

_GCD = re.compile(r"numbers: (\d+), (\d+)\.")
_PRODUCT = re.compile(r"multiplication: (\d+) \* (\d+)\.")


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """How the teacher's lessons are mixed, and how often they are wrong. All are probabilities."""

    designer: float = 1 / 6  # a demonstration is a designer's
    appropriate: float = 0.2  # a design is the one that suits the question's kind; else any that the question allows
    step: float = 0.7  # a lesson on a sum is one operation of it, as a chain asks it; else the whole sum
    call: float = 0.6  # a lesson on a tool question is the tool agent's; else an answer without tool
    noise_sum: float = 0.2  # an answer to a sum has one wrong digit
    noise_tool: float = (
        0.35  # a tool question: a wrong digit in the expression, or no call; without tool, a wrong digit
    )
    noise_spell: float = 0.3  # a spelled word has one wrong letter

    def __post_init__(self) -> None:
        for name in ("designer", "appropriate", "step", "call", "noise_sum", "noise_tool", "noise_spell"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"teacher.{name} must be a probability, not {getattr(self, name)}")


def demonstrate(records: Sequence[Record], options: TeacherOptions, seed: int, number: int) -> Demonstration:
    """Demonstration `number` of the teacher with this seed: a function of its arguments alone."""
    draw = random.Random(f"{seed}/{number}")
    record = records[draw.randrange(len(records))]
    if record.dataset not in _LESSONS:
        raise ValueError(f"no demonstrations of {record.dataset!r}: the teacher knows {', '.join(_LESSONS)}")
    if draw.random() < options.designer:
        return _design(record, options, draw)
    return Demonstration("executor", lesson(record, options, draw), record.kind)


def lesson(record: Record, options: TeacherOptions, draw: random.Random) -> tuple[Message, ...]:
    """An agent's conversation on a question or on one step of it."""
    if score(record.entry, record.answer) != 1.0:
        raise ValueError(f"question {record.id}: its verifier refuses its own answer {record.answer!r}")
    return _LESSONS[record.dataset](record, options, draw)


def _design(record: Record, options: TeacherOptions, draw: random.Random) -> Demonstration:
    designs = reference_designs(record.question)
    name = APPROPRIATE[record.dataset] if draw.random() < options.appropriate else draw.choice(list(designs))
    messages = (
        Message("system", DESIGNER_PROMPT),
        Message("user", record.question),
        Message("assistant", designs[name]),
    )
    return Demonstration("designer", messages, record.kind)


def _sum(record: Record, options: TeacherOptions, draw: random.Random) -> tuple[Message, ...]:
    if draw.random() >= options.step:
        return _asked("solve", record.question, _noisy(record.answer, options.noise_sum, draw))
    steps = chain_steps(record.question)
    if score(record.entry, steps[-1][1]) != 1.0:
        raise ValueError(f"question {record.id}: its chain ends at {steps[-1][1]}, which its verifier refuses")
    prompt, answer = draw.choice(steps)
    return _asked("solve", prompt, _noisy(answer, options.noise_sum, draw))


def chain_steps(question: str) -> list[tuple[str, str]]:
    """What each step of a sum's chain is asked and should answer: [("4 - 1", "3"), ("3 - 7", "-4")]."""
    terms = terms_of(question)
    if terms is None:
        raise ValueError(f"not a sum: {question!r}")
    value, steps = terms[0], []
    for operator, term in terms[1]:
        prompt = f"{value} {operator} {term}"
        value = value + term if operator == "+" else value - term
        steps.append((prompt, str(value)))
    return steps


def _tool(record: Record, options: TeacherOptions, draw: random.Random) -> tuple[Message, ...]:
    if draw.random() >= options.call:
        return _asked("solve", record.question, _noisy(record.answer, options.noise_tool, draw))
    expression = tool_expression(record.question, options.noise_tool, draw)
    if expression is None:
        return _asked("tool", record.question, record.answer)
    return _with_tool(record.question, expression)


def tool_expression(question: str, noise: float, draw: random.Random) -> str | None:
    """What the calculator is asked, with probability `noise` a wrong thing or (None) nothing."""
    operation, left, right = expression_of(question)
    if draw.random() < noise:
        if draw.random() < 0.5:
            return None
        left = int(corrupt(str(left), draw)) or left + 1  # 0 has no place in a gcd
    return f"gcd({left}, {right})" if operation == "gcd" else f"{left} * {right}"


def expression_of(question: str) -> tuple[str, int, int]:
    """The operation ("gcd" or "*") and the two numbers of a tool question."""
    for operation, pattern in (("gcd", _GCD), ("*", _PRODUCT)):
        found = pattern.search(question)
        if found is not None:
            return operation, int(found.group(1)), int(found.group(2))
    raise ValueError(f"neither a gcd nor a product of two numbers: {question!r}")


def _with_tool(question: str, expression: str) -> tuple[Message, ...]:
    result = calculate(expression, allowed=TINY_OPERATIONS)
    role = TINY_PALETTE["tool"]
    return (
        Message("system", role.system_prompt),
        Message("user", question),
        Message("assistant", expression.join(TOOL_CALL)),
        Message("tool", result),
        Message("assistant", f"\\boxed{{{result}}}"),
    )


def _spell(record: Record, options: TeacherOptions, draw: random.Random) -> tuple[Message, ...]:
    return _asked("solve", record.question, _noisy(record.answer, options.noise_spell, draw))


_LESSONS = {"chain_sum": _sum, "gcd": _tool, "products": _tool, "spell_backward": _spell}


def _asked(role: str, prompt: str, answer: str) -> tuple[Message, ...]:
    return (
        Message("system", TINY_PALETTE[role].system_prompt),
        Message("user", prompt),
        Message("assistant", f"\\boxed{{{answer}}}"),
    )


def _noisy(answer: str, probability: float, draw: random.Random) -> str:
    return corrupt(answer, draw) if draw.random() < probability else answer


def corrupt(answer: str, draw: random.Random) -> str:
    """`answer` with one digit or letter replaced by a different one; a sign stays."""
    places = [i for i, character in enumerate(answer) if character.isalnum()]
    place = draw.choice(places)
    alphabet = string.digits if answer[place].isdigit() else string.ascii_lowercase
    wrong = draw.choice([character for character in alphabet if character != answer[place].lower()])
    return answer[:place] + wrong + answer[place + 1 :]
