"""The M x N tree of a question as a process: designs side by side, and of each valid one its executions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import TypeAlias

from metaagentx.rollout.language import Language
from metaagentx.rollout.options import TreeOptions
from metaagentx.rollout.reward import judge, mean_reward
from metaagentx.rollout.trajectory import DesignRollout, Execution, Tree
from metaagentx.tasks.task import GradingFailed, Question, Task, Verdict
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Design, Workflow
from metaagentx.workflow.protocol import Call, Fork, Outcome, Process, Reply, RunResult
from metaagentx.workflow.room import CHARACTERS, Room

Grown: TypeAlias = Callable[[], DesignRollout]
"""A design whose runs have ended: called, it waits for their grades."""


def forest(
    questions: Sequence[Question],
    task: Task,
    options: TreeOptions,
    language: Language,
    designs: Sequence[str] = (),
    room: Room = CHARACTERS,
    own: Container[int] | None = None,
) -> Process[list[Tree]]:
    """The trees of many questions, side by side. Grading begins as a run ends, and is waited for when all have ended.

    `designs`: a short-form design for each, instead of sampled ones. `room`: how long an agent's prompt may become.
    `own`: the numbers of the questions whose trees grow, the others stay without designs; None: of all.
    """
    given = designs or [options.fixed_design] * len(questions)
    branches = [grow(q, task, options, language, room, design) for q, design in zip(questions, given, strict=True)]
    if own is not None:
        branches = [branch if number in own else elsewhere() for number, branch in enumerate(branches)]
    trees = yield Fork(tuple(branches), "question")
    return [Tree(q, [design() for design in tree]) for q, tree in zip(questions, trees, strict=True)]


def elsewhere() -> Process[tuple[Grown, ...]]:
    """A tree that grows in another process."""
    yield from ()
    return ()


def grow(
    question: Question, task: Task, options: TreeOptions, language: Language, room: Room, given: str = ""
) -> Process[tuple[Grown, ...]]:
    """Sample M designs (or take the given one M times), run each valid one N times, have all graded."""
    if given:
        parsed = language.read_fixed(given)
        branches = [
            execute(given, Outcome.OK, parsed, question, task, options, language, room) for _ in range(options.designs)
        ]
    else:
        branches = [design(question, task, options, language, room) for _ in range(options.designs)]
    designs: tuple[Grown, ...] = yield Fork(tuple(branches), "design")
    return designs


def design(question: Question, task: Task, options: TreeOptions, language: Language, room: Room) -> Process[Grown]:
    """One sampled design and its executions. A response that is no valid design is not run, and keeps its diagnosis."""
    reply: Reply = yield Call("designer", "designer", tuple(task.designer_messages(question)))
    parsed = language.read(reply.text)
    if not isinstance(parsed, Design):
        lost = reply.outcome == Outcome.FAILED
        return partial(DesignRollout, reply.text, parsed, "", "", -options.w_invalid, reply.outcome, masked=lost)
    return (yield from execute(reply.text, reply.outcome, parsed, question, task, options, language, room))


def execute(
    text: str,
    outcome: Outcome,
    parsed: Design,
    question: Question,
    task: Task,
    options: TreeOptions,
    language: Language,
    room: Room,
) -> Process[Grown]:
    """Run a valid design N times."""
    workflow = parsed.workflow
    branches = tuple(attempt(workflow, question, task, options, language, room) for _ in range(options.executions))
    ended = yield Fork(branches, "execution")

    def rewarded() -> DesignRollout:
        executions = [graded(result, verdict, options) for result, verdict in ended]
        return DesignRollout(
            text=text,
            parsed=parsed,
            key=language.key(workflow),
            leaks=task.leaks(question, language.texts(workflow)),
            short=language.show(workflow),
            reward=mean_reward(executions),
            outcome=outcome,
            masked=all(execution.masked for execution in executions),
            executions=executions,
        )

    return rewarded


def attempt(
    workflow: Workflow, question: Question, task: Task, options: TreeOptions, language: Language, room: Room
) -> Process[tuple[RunResult, Verdict]]:
    """One run, and the grade of its answer on its way."""
    result = yield from run(
        workflow,
        question.prompt,
        task.delivery(question),
        wording=language.wording,
        max_calls=language.limits.model_calls,
        max_tool_calls=options.tool_calls,
        room=room,
        tool_texts=language.tool_texts,
    )
    return result, task.grading(question, result.answer)


def graded(result: RunResult, verdict: Verdict, options: TreeOptions) -> Execution:
    """A run with its reward; masked where the grader broke down."""
    try:
        return judge(result, verdict(), options)
    except GradingFailed:
        return judge(dataclasses.replace(result, outcome=Outcome.FAILED), 0.0, options)
