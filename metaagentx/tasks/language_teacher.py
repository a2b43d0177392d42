"""The teacher of a small language model: it plays workflows on train questions and keeps one conversation of each.

A designer's demonstration is a short form drawn evenly from those that fit the question. An executor's is a whole
conversation of one agent in the run of such a design, opened by the interpreter itself, so what later agents are shown
of earlier ones is exactly what they will be shown. Agents before it may err (`misled`); what is imitated does not,
unless `noise` says so.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metaagentx.tasks import lessons
from metaagentx.tasks.grading import Grader
from metaagentx.tasks.gym import Record
from metaagentx.tasks.language_palette import PALETTE
from metaagentx.tasks.task import Delivery, Demonstration
from metaagentx.tasks.teacher import TOOL_CALL, corrupt
from metaagentx.tools.toolbox import Toolbox
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Design, Limits, Workflow
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Call, Message, Reply, ToolCall, ToolResult
from metaagentx.workflow.replay import Path, drive
from metaagentx.workflow.short import parse_short


@dataclass(frozen=True, slots=True)
class LessonOptions:
    """How the lessons are mixed. All are probabilities."""

    designer: float = 0.25  # a demonstration is a designer's
    misled: float = 0.3  # an earlier agent hands in a wrong answer, so that those who check have something to find
    noise: float = 0.0  # an answer that is imitated has one wrong character

    def __post_init__(self) -> None:
        for name in ("designer", "misled", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"lessons.{name} must be a probability, not {getattr(self, name)}")


class Teacher:
    """Writes demonstrations: a function of (seed, number) alone."""

    def __init__(
        self,
        records: Sequence[Record],
        options: LessonOptions,
        *,
        deliveries: Mapping[str, Delivery],
        grader: Grader,
        toolbox: Toolbox,
        wording: Wording,
        prompt: str,
    ) -> None:
        self._records, self._options = records, options
        self._deliveries, self._grader = deliveries, grader
        self._toolbox, self._wording, self._prompt = toolbox, wording, prompt
        self._checked: set[str] = set()  # records whose own answer the grader has accepted

    def demonstrate(self, seed: int, number: int) -> Demonstration:
        """Demonstration `number` of the teacher with this seed."""
        draw = random.Random(f"{seed}/{number}")
        record = self._records[draw.randrange(len(self._records))]
        design = draw.choice(lessons.designs(record))
        if draw.random() < self._options.designer:
            messages = (
                Message("system", self._prompt),
                Message("user", record.question),
                Message("assistant", design),
            )
            return Demonstration("designer", messages, record.kind)
        return Demonstration("executor", self._lesson(record, design, draw), record.kind)

    def _lesson(self, record: Record, design: str, draw: random.Random) -> tuple[Message, ...]:
        """One conversation of the run of a design, that of an agent which does not err on purpose."""
        misled = self._options.misled if "check(" in design else 0.0
        self._check(record)
        play = _Play(record, misled, self._options.noise, self._toolbox, draw)
        workflow = _parsed(design, self._toolbox.names())
        process = run(
            workflow,
            record.question,
            self._deliveries[record.domain],
            wording=self._wording,
            max_calls=100,
            tool_texts=self._toolbox.texts(),
        )
        drive(process, play)
        return draw.choice([messages for key, messages in play.conversations.items() if key not in play.misled])

    def _check(self, record: Record) -> None:
        """Have the grader accept the record's own answer, once; all programs together, as they share a process."""
        if record.id in self._checked:
            return
        if record.domain == "code":
            programs = [each for each in self._records if each.domain == "code"]
            self._grader.check_programs(programs)
            self._checked.update(each.id for each in programs)
            return
        answer = self._deliveries[record.domain].normalise(record.answer)
        if self._grader(record, answer)() != 1.0:
            raise ValueError(f"question {record.id}: its grader refuses its own answer {record.answer!r}")
        self._checked.add(record.id)


class _Play:
    """Answers every call of one run as a patient agent would, and keeps each conversation."""

    def __init__(self, record: Record, misled: float, noise: float, toolbox: Toolbox, draw: random.Random) -> None:
        self.record, self.toolbox, self.draw = record, toolbox, draw
        self.rate, self.noise = misled, noise
        self.conversations: dict[tuple[Path, int], tuple[Message, ...]] = {}
        self.misled: set[tuple[Path, int]] = set()

    def __call__(self, path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        if isinstance(request, ToolCall):
            return self.toolbox.run(request)
        key = path, request.conversation
        before = (*self.conversations.get(key, ()), *request.messages)
        text = self._reply(key, before)
        self.conversations[key] = (*before, Message("assistant", text))
        return Reply(text)

    def _reply(self, key: tuple[Path, int], messages: tuple[Message, ...]) -> str:
        role = next(name for name, each in PALETTE.items() if messages[0].content.startswith(each.system_prompt))
        if messages[-1].role == "tool":
            return _boxed(messages[-1].content)
        asked = messages[1].content
        whole = asked.startswith(self.record.question)
        if role == "calc":
            return (lessons.expression(self.record) or "").join(TOOL_CALL) if whole else asked.join(TOOL_CALL)
        if role == "plan":
            return lessons.plan(self.record)
        steps, answer = (lessons.worked(self.record), self.record.answer) if whole else lessons.worked_task(asked)
        if role != "check" and self.draw.random() < self.rate:
            self.misled.add(key)
            return self._handed_in("", corrupt(answer, self.draw))
        if self.draw.random() < self.noise:
            return self._handed_in(steps, corrupt(answer, self.draw))
        return self._handed_in(f"Check: {steps}" if role == "check" and steps else steps, answer)

    def _handed_in(self, steps: str, answer: str) -> str:
        if self.record.domain == "code":
            return f"<solution>\n{answer}\n</solution>"
        return f"{steps} {_boxed(answer)}".strip()


def _boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


@functools.lru_cache(maxsize=10_000)
def _parsed(design: str, tools: frozenset[str]) -> Workflow:
    parsed = parse_short(design, palette=PALETTE, limits=Limits(), tools=tools)
    assert isinstance(parsed, Design), parsed
    return parsed.workflow
