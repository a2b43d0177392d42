"""The M x N tree of a question as a process: designs side by side, and of each valid one its executions."""

from __future__ import annotations

from collections.abc import Sequence

from metaagentx.rollout.language import Language
from metaagentx.rollout.options import TreeOptions
from metaagentx.rollout.reward import judge, mean_reward
from metaagentx.rollout.trajectory import DesignRollout, Execution, Tree
from metaagentx.tasks.task import Question, Task
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Design, Workflow
from metaagentx.workflow.protocol import Call, Fork, Outcome, Process, Reply


def forest(questions: Sequence[Question], task: Task, options: TreeOptions, language: Language) -> Process[list[Tree]]:
    """The trees of many questions, side by side."""
    trees = yield Fork(tuple(grow(question, task, options, language) for question in questions), "question")
    return list(trees)


def grow(question: Question, task: Task, options: TreeOptions, language: Language) -> Process[Tree]:
    """Sample M designs (or take the given one M times), run each valid one N times, grade and reward all."""
    if options.fixed_design:
        given = language.read_fixed(options.fixed_design)
        branches = [repeat(given, question, task, options, language) for _ in range(options.designs)]
    else:
        branches = [design(question, task, options, language) for _ in range(options.designs)]
    designs = yield Fork(tuple(branches), "design")
    return Tree(question, list(designs))


def design(question: Question, task: Task, options: TreeOptions, language: Language) -> Process[DesignRollout]:
    """One sampled design and its executions. A response that is no valid design is not run, and keeps its diagnosis."""
    reply: Reply = yield Call("designer", "designer", tuple(task.designer_messages(question)))
    parsed = language.read(reply.text)
    if not isinstance(parsed, Design):
        lost = reply.outcome == Outcome.FAILED
        return DesignRollout(reply.text, parsed, "", "", -options.w_invalid, reply.outcome, masked=lost)
    return (yield from execute(reply.text, reply.outcome, parsed, question, task, options, language))


def repeat(
    given: Design, question: Question, task: Task, options: TreeOptions, language: Language
) -> Process[DesignRollout]:
    """The executions of a given design."""
    return (yield from execute(options.fixed_design, Outcome.OK, given, question, task, options, language))


def execute(
    text: str,
    outcome: Outcome,
    parsed: Design,
    question: Question,
    task: Task,
    options: TreeOptions,
    language: Language,
) -> Process[DesignRollout]:
    """Run a valid design N times."""
    workflow = parsed.workflow
    branches = tuple(attempt(workflow, question, task, options, language) for _ in range(options.executions))
    executions = list((yield Fork(branches, "execution")))
    return DesignRollout(
        text=text,
        parsed=parsed,
        key=language.key(workflow),
        short=language.show(workflow),
        reward=mean_reward(executions),
        outcome=outcome,
        masked=all(execution.masked for execution in executions),
        executions=executions,
    )


def attempt(
    workflow: Workflow, question: Question, task: Task, options: TreeOptions, language: Language
) -> Process[Execution]:
    """One run, graded."""
    result = yield from run(
        workflow,
        question.prompt,
        task.delivery,
        wording=language.wording,
        max_calls=language.limits.model_calls,
        tool_texts=language.tool_texts,
    )
    return judge(result, task.grade(question, result.answer), options)
