"""The teacher of a tiny team: conversations to imitate for its main agent and for its sub-agents. It errs on purpose.

The main agent learns how to delegate and how to hand in, not what is best delegated to whom, nor in how many steps:
that is drawn almost without regard to the question (`TeamLessons`). Sub-agents learn from the noisy lessons of the tiny
task. So does an agent that works alone, the baseline: it has the calculator, and errs on each part as they do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from metaagentx.tasks.compound import COMMA, judge, parts_of
from metaagentx.tasks.gym import Record
from metaagentx.tasks.palette import TINY_OPERATIONS
from metaagentx.tasks.reference_designs import terms_of
from metaagentx.tasks.task import Demonstration
from metaagentx.tasks.teacher import TOOL_CALL, TeacherOptions, chain_steps, corrupt, lesson, tool_expression
from metaagentx.tools.calculator import calculate
from metaagentx.workflow.protocol import Message

MAIN_PROMPT = "Lead the team."
ALONE_PROMPT = "Work alone."  # of a main agent without sub-agents, which has the calculator itself
CALCULATOR, SOLVER = "calc", "solver"  # the two kinds of sub-agents, by the names that the main agent calls
WITH_TOOL = ("gcd", "products")  # data sets whose questions are for the calculator


@dataclass(frozen=True, slots=True)
class TeamLessons:
    """How the lessons of a tiny team are mixed, and how often they are wrong. All are probabilities."""

    main: float = 0.5  # a demonstration is the main agent's
    alone: float = 0.0  # a demonstration is that of an agent which works alone; the rest are sub-agents'
    sums: float = 0.5  # a sub-agent's lesson is on a sum, which is learned most slowly
    fitting: float = 0.6  # a part goes to the sub-agent that suits it; else to either
    stepwise: float = 0.4  # a sum is delegated step by step, over several rounds; else as a whole
    noise: float = 0.1  # the main agent's answer has one wrong character

    def __post_init__(self) -> None:
        for name in ("main", "alone", "sums", "fitting", "stepwise", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"team_lessons.{name} must be a probability, not {getattr(self, name)}")
        if self.main + self.alone > 1:
            raise ValueError(f"team_lessons.main and .alone must not exceed 1 together: {self.main} + {self.alone}")


def _call(sub: str) -> tuple[str, str]:
    """What stands before and after a sub-task in a main agent's call."""
    return f'<tool_call>{{"name": "{sub}", "arguments": {{"task": "', '"}}</tool_call>'


DELEGATIONS = (_call(CALCULATOR)[0], _call(SOLVER)[0])  # their end is that of any call


def delegation(sub: str, task: str) -> str:
    """A main agent's call of a sub-agent."""
    return json.dumps(task)[1:-1].join(_call(sub))


def sums_apart(parts: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
    """The sums, and the rest."""
    sums = [part for part in parts if terms_of(part.question) is not None]
    return sums, [part for part in parts if terms_of(part.question) is None]


def demonstrate_team(
    records: Sequence[Record],
    parts: tuple[Sequence[Record], Sequence[Record]],
    options: TeamLessons,
    teacher: TeacherOptions,
    seed: int,
    number: int,
) -> Demonstration:
    """Demonstration `number` of this seed: of the role "main" on one of `records`, or of "sub" on one of `parts`.

    parts: as `sums_apart` gives them.
    """
    draw = random.Random(f"team/{seed}/{number}")
    share = draw.random()
    if share >= options.main + options.alone:
        sums, others = parts
        chosen = sums if draw.random() < options.sums else others
        part = draw.choice(chosen or sums or others)
        return Demonstration("sub", lesson(part, teacher, draw), part.kind)
    record = records[draw.randrange(len(records))]
    if judge(record, record.answer) != 1.0:
        raise ValueError(f"question {record.id}: its verifiers refuse its own answer {record.answer!r}")
    messages = _lead(record, options, draw) if share < options.main else _alone(record, teacher, draw)
    return Demonstration("main", messages, record.kind)


def _lead(record: Record, options: TeamLessons, draw: random.Random) -> tuple[Message, ...]:
    """A whole rollout as the main agent sees it: round by round, every part's next step at once."""
    lines = [_errands(question, answer, dataset, options, draw) for question, answer, dataset in parts_of(record)]
    messages = [Message("system", MAIN_PROMPT), Message("user", record.question)]
    for turn in range(max(map(len, lines))):
        asked = [line[turn] for line in lines if turn < len(line)]
        messages.append(Message("assistant", "".join(delegation(sub, task) for sub, task, _ in asked)))
        messages += [Message("tool", f"\\boxed{{{reply}}}") for _, _, reply in asked]
    answers = [line[-1][2] for line in lines]
    if draw.random() < options.noise:
        spoiled = draw.randrange(len(answers))
        answers[spoiled] = corrupt(answers[spoiled], draw)
    return (*messages, Message("assistant", f"\\boxed{{{COMMA.join(answers)}}}"))


def _errands(
    question: str, answer: str, dataset: str, options: TeamLessons, draw: random.Random
) -> list[tuple[str, str, str]]:
    """(sub-agent, sub-task, right reply) of each round that a part takes."""
    if terms_of(question) is not None and draw.random() < options.stepwise:
        return [(SOLVER, task, reply) for task, reply in chain_steps(question)]
    fitting = CALCULATOR if dataset in WITH_TOOL else SOLVER
    sub = fitting if draw.random() < options.fitting else draw.choice((CALCULATOR, SOLVER))
    return [(sub, question, answer)]


def _alone(record: Record, teacher: TeacherOptions, draw: random.Random) -> tuple[Message, ...]:
    """A whole conversation of an agent that has the calculator for some parts, and answers the others by itself."""
    calls, results, answers = [], [], []
    for question, answer, dataset in parts_of(record):
        if dataset in WITH_TOOL:
            expression = tool_expression(question, teacher.noise_tool, draw)
            if expression is not None:
                calls.append(expression.join(TOOL_CALL))
                answer = calculate(expression, allowed=TINY_OPERATIONS)
                results.append(Message("tool", answer))
            answers.append(answer)
        else:
            noise = teacher.noise_sum if dataset == "chain_sum" else teacher.noise_spell
            answers.append(corrupt(answer, draw) if draw.random() < noise else answer)
    messages = [Message("system", ALONE_PROMPT), Message("user", record.question)]
    if calls:
        messages += [Message("assistant", "".join(calls)), *results]
    return (*messages, Message("assistant", f"\\boxed{{{COMMA.join(answers)}}}"))
