"""What can be chosen about a task. Bad values are errors that name their key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metaagentx.tasks.compound import CompoundOptions
from metaagentx.tasks.files import FileOptions
from metaagentx.tasks.gym import GymOptions
from metaagentx.tasks.language_gym import LANGUAGE_GYM
from metaagentx.tasks.language_teacher import LessonOptions
from metaagentx.tasks.teacher import TeacherOptions
from metaagentx.tasks.team_teacher import TeamLessons
from metaagentx.tools.options import ToolOptions
from metaagentx.tools.sandbox import SandboxOptions


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What is asked, and in which words. Only the sections of the chosen `kind` count."""

    kind: Literal["tiny", "compound", "gym", "files"] = "tiny"  # "compound": of a tiny team
    tiny: GymOptions = GymOptions()
    teacher: TeacherOptions = TeacherOptions()  # of the tiny task, and of a tiny team's sub-agents
    compound: CompoundOptions = CompoundOptions()
    team_lessons: TeamLessons = TeamLessons()  # of a tiny team's main agent
    gym: GymOptions = LANGUAGE_GYM
    lessons: LessonOptions = LessonOptions()  # of the gym's teacher
    files: FileOptions = FileOptions()
    prompts: Literal["brief", "full"] = "brief"  # gym, files: designs as short forms, or as scripts (large models)
    tools: ToolOptions = ToolOptions()  # what agents may call
    sandbox: SandboxOptions = SandboxOptions()  # of tools that run Python, and of questions that ask for code
