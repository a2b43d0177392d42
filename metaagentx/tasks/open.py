"""Which task a run learns, by its options: a tiny one, a gym for language models, or the user's own files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from metaagentx.tasks import answers
from metaagentx.tasks.answers import BoxedDelivery, SolutionDelivery, TaggedDelivery
from metaagentx.tasks.compound_task import CompoundTask
from metaagentx.tasks.dataset import load, prepare
from metaagentx.tasks.equivalence import Equivalence
from metaagentx.tasks.files import read_splits
from metaagentx.tasks.grading import Grader
from metaagentx.tasks.gym import Record
from metaagentx.tasks.gym_task import tiny_task
from metaagentx.tasks.language_palette import palette, short_prompt
from metaagentx.tasks.language_teacher import Teacher
from metaagentx.tasks.options import TaskOptions
from metaagentx.tasks.order import position
from metaagentx.tasks.palette import TINY_OPERATIONS, TINY_PALETTE
from metaagentx.tasks.record_task import RecordTask
from metaagentx.tasks.script_prompt import script_prompt
from metaagentx.tasks.sharegpt import read_demonstrations
from metaagentx.tasks.task import Delivery, Demonstration, Task
from metaagentx.tasks.toolbox import open_toolbox
from metaagentx.tools.calculator import OPERATIONS
from metaagentx.tools.sandbox import Sandbox
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.ir import Limits, Role
from metaagentx.workflow.prompts import Wording

TINY = ("tiny", "compound")  # the kinds for policies that know nothing but what they were taught


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What designs of a task may name, and what agents are told beside the design's and the task's words."""

    palette: Mapping[str, Role]
    toolbox: Toolbox
    wording: Wording
    tool_texts: Mapping[str, str]
    sandbox: Callable[[], Sandbox]  # the one of tools and of grading, made when it is first asked for


def surroundings(options: TaskOptions, data_dir: str | Path) -> Surroundings:
    """The palette, the tools and the words that go with a task.

    Raises:
      ValueError: `options.tools` names what cannot be had, or lacks what a role needs.
      SandboxUnavailable: a tool needs a sandbox, and this machine cannot isolate programs.
    """
    tiny = options.kind in TINY
    sandbox = functools.cache(lambda: Sandbox(options.sandbox))
    operations = TINY_OPERATIONS if tiny else OPERATIONS
    toolbox = open_toolbox(options.tools, Path(data_dir), sandbox, operations)
    roles = TINY_PALETTE if tiny else palette(tuple(toolbox.tools))
    if tiny or options.prompts == "brief":
        for name, role in roles.items():
            for tool in set(role.tools) - toolbox.names():
                raise ValueError(f"task.tools.names must hold {tool!r}: the role {name!r} of short designs has it")
    if options.kind == "tiny":
        for name in sorted(toolbox.names().difference(*(role.tools for role in roles.values()))):
            raise ValueError(
                f"task.tools must not hold {name!r}: no role of the tiny task has it (task.kind 'gym' has)"
            )
    if tiny:
        return Surroundings(roles, toolbox, Wording(tool_error="Error"), {}, sandbox)
    return Surroundings(roles, toolbox, Wording(), toolbox.texts(), sandbox)


def open_task(
    options: TaskOptions,
    data_dir: str | Path,
    limits: Limits,
    around: Surroundings | None = None,
    roles: Sequence[str] = ("designer", "executor"),
) -> Task:
    """The task, its questions prepared under `data_dir` or read.

    `around`: its `surroundings`, where there are some yet. `roles`: of the run, which demonstrations in a file are for.

    Raises:
      ValueError: the options, a file or a row is wrong; the message names it.
      SandboxUnavailable: questions ask for code and this machine cannot isolate programs.
    """
    if options.kind == "tiny":
        return tiny_task(options.tiny, data_dir, options.teacher)
    if options.kind == "compound":
        return CompoundTask(options.compound, data_dir, options.team_lessons, options.teacher)
    around = around or surroundings(options, data_dir)
    deliveries = _deliveries(options.prompts)
    if options.kind == "gym":
        grader = _grader(options, around, {family.domain for family in options.gym.families})  # before the long work
        splits = load(prepare(options.gym, data_dir))
    else:
        splits = read_splits(options.files)
        grader = _grader(options, around, {record.domain for records in splits.values() for record in records})
    prompt = _designer_prompt(options, around, limits)
    return RecordTask(
        options.kind,
        splits,
        deliveries=deliveries,
        grade=grader,
        designer_prompt=lambda question: prompt,
        teach=_teach(options, around, splits["train"], deliveries, grader, prompt, roles),
    )


def _deliveries(prompts: str) -> dict[str, Delivery]:
    brief = prompts == "brief"
    boxed = BoxedDelivery(answers.BRIEF_MATHEMATICS_INSTRUCTION if brief else answers.MATHEMATICS_INSTRUCTION)
    tagged = TaggedDelivery(answers.BRIEF_QA_INSTRUCTION if brief else answers.QA_INSTRUCTION)
    solution = SolutionDelivery(answers.BRIEF_CODE_INSTRUCTION if brief else answers.CODE_INSTRUCTION)
    return {"mathematics": boxed, "text": boxed, "qa": tagged, "code": solution}


def _designer_prompt(options: TaskOptions, around: Surroundings, limits: Limits) -> str:
    if options.prompts == "brief":
        return short_prompt(tuple(around.toolbox.tools))
    tools = {tool.name: tool.description for tool in around.toolbox.tools.values()}
    return script_prompt(tools, agents=limits.agents, calls=limits.model_calls)


def _grader(options: TaskOptions, around: Surroundings, domains: Set[str]) -> Grader:
    compares = options.kind == "files" and options.files.grading == "equivalence" and "mathematics" in domains
    return Grader(around.sandbox() if "code" in domains else None, Equivalence() if compares else None)


def _teach(
    options: TaskOptions,
    around: Surroundings,
    train: list[Record],
    deliveries: Mapping[str, Delivery],
    grader: Grader,
    prompt: str,
    roles: Sequence[str],
) -> Callable[[int, int], Demonstration]:
    """Where demonstrations come from: a file if there is one, else the gym's teacher."""
    if options.files.demonstrations:
        given = read_demonstrations(options.files.demonstrations, roles)
        return lambda seed, number: given[position(seed, number, len(given))]
    if options.kind == "gym" and options.prompts == "brief":
        teacher = Teacher(
            train,
            options.lessons,
            deliveries=deliveries,
            grader=grader,
            toolbox=around.toolbox,
            wording=around.wording,
            prompt=prompt,
        )
        return teacher.demonstrate

    def missing(seed: int, number: int) -> Demonstration:
        raise ValueError(
            f"task.kind {options.kind!r} with task.prompts {options.prompts!r} has no teacher: give "
            "task.files.demonstrations, or begin without (cold_start.steps 0)"
        )

    return missing
