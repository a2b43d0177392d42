"""Which task a run learns, by its options: the tiny one, a gym for language models, or the user's own files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from metaagentx.tasks import answers
from metaagentx.tasks.answers import BoxedDelivery, SolutionDelivery, TaggedDelivery
from metaagentx.tasks.dataset import load, prepare
from metaagentx.tasks.equivalence import Equivalence
from metaagentx.tasks.files import read_splits
from metaagentx.tasks.grading import Grader
from metaagentx.tasks.gym import Record
from metaagentx.tasks.gym_task import tiny_task
from metaagentx.tasks.language_palette import PALETTE, SHORT_PROMPT
from metaagentx.tasks.language_teacher import Teacher
from metaagentx.tasks.options import TaskOptions
from metaagentx.tasks.order import position
from metaagentx.tasks.palette import TINY_OPERATIONS, TINY_PALETTE
from metaagentx.tasks.record_task import RecordTask
from metaagentx.tasks.script_prompt import script_prompt
from metaagentx.tasks.sharegpt import read_demonstrations
from metaagentx.tasks.task import Delivery, Demonstration, Task
from metaagentx.tools.calculator import make_calculator
from metaagentx.tools.python_tool import make_python
from metaagentx.tools.sandbox import Sandbox
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.ir import Limits, Role
from metaagentx.workflow.prompts import Wording


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What designs of a task may name, and what agents are told beside the design's and the task's words."""

    palette: Mapping[str, Role]
    toolbox: Toolbox
    wording: Wording
    tool_texts: Mapping[str, str]


def surroundings(options: TaskOptions) -> Surroundings:
    """The palette, the tools and the words that go with a task. Raises SandboxUnavailable where `python` needs one."""
    if options.kind == "tiny":
        return Surroundings(
            TINY_PALETTE, Toolbox([make_calculator(TINY_OPERATIONS)]), Wording(tool_error="Error"), tool_texts={}
        )
    tools = [make_calculator(), *([make_python(Sandbox(options.sandbox))] if options.python else [])]
    toolbox = Toolbox(tools)
    return Surroundings(PALETTE, toolbox, Wording(), toolbox.texts())


def open_task(options: TaskOptions, data_dir: str | Path, limits: Limits) -> Task:
    """The task, its questions prepared under `data_dir` or read.

    Raises:
      ValueError: the options, a file or a row is wrong; the message names it.
      SandboxUnavailable: questions ask for code and this machine cannot isolate programs.
    """
    if options.kind == "tiny":
        return tiny_task(options.tiny, data_dir, options.teacher)
    deliveries = _deliveries(options.prompts)
    if options.kind == "gym":
        grader = _grader(options, {family.domain for family in options.gym.families})  # before the long work
        splits = load(prepare(options.gym, data_dir))
    else:
        splits = read_splits(options.files)
        grader = _grader(options, {record.domain for records in splits.values() for record in records})
    prompt = _designer_prompt(options, limits)
    return RecordTask(
        options.kind,
        splits,
        deliveries=deliveries,
        grade=grader,
        designer_prompt=lambda question: prompt,
        teach=_teach(options, splits["train"], deliveries, grader),
    )


def _deliveries(prompts: str) -> dict[str, Delivery]:
    brief = prompts == "brief"
    boxed = BoxedDelivery(answers.BRIEF_MATHEMATICS_INSTRUCTION if brief else answers.MATHEMATICS_INSTRUCTION)
    tagged = TaggedDelivery(answers.BRIEF_QA_INSTRUCTION if brief else answers.QA_INSTRUCTION)
    solution = SolutionDelivery(answers.BRIEF_CODE_INSTRUCTION if brief else answers.CODE_INSTRUCTION)
    return {"mathematics": boxed, "text": boxed, "qa": tagged, "code": solution}


def _designer_prompt(options: TaskOptions, limits: Limits) -> str:
    if options.prompts == "brief":
        return SHORT_PROMPT
    tools = {tool.name: tool.description for tool in surroundings(options).toolbox.tools.values()}
    return script_prompt(tools, agents=limits.agents, calls=limits.model_calls)


def _grader(options: TaskOptions, domains: Set[str]) -> Grader:
    compares = options.kind == "files" and options.files.grading == "equivalence" and "mathematics" in domains
    return Grader(Sandbox(options.sandbox) if "code" in domains else None, Equivalence() if compares else None)


def _teach(
    options: TaskOptions, train: list[Record], deliveries: Mapping[str, Delivery], grader: Grader
) -> Callable[[int, int], Demonstration]:
    """Where demonstrations come from: a file if there is one, else the gym's teacher."""
    if options.files.demonstrations:
        given = read_demonstrations(options.files.demonstrations)
        return lambda seed, number: given[position(seed, number, len(given))]
    if options.kind == "gym" and options.prompts == "brief":
        around = surroundings(options)
        teacher = Teacher(
            train,
            options.lessons,
            deliveries=deliveries,
            grader=grader,
            toolbox=around.toolbox,
            wording=around.wording,
        )
        return teacher.demonstrate

    def missing(seed: int, number: int) -> Demonstration:
        raise ValueError(
            f"task.kind {options.kind!r} with task.prompts {options.prompts!r} has no teacher: give "
            "task.files.demonstrations, or begin without (cold_start.steps 0)"
        )

    return missing
