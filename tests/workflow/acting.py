"""A play for workflows: actors answer by script, and everything that they were shown is kept."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Node, Workflow
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Call, Reply, RunResult, ToolCall, ToolResult
from metaagentx.workflow.replay import Path, drive
from metaagentx.workflow.room import CHARACTERS, Room

CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "1+1"}}</tool_call>'


def box(answer: object) -> str:
    return f"so \\boxed{{{answer}}}"


@dataclass(frozen=True)
class Boxed:
    """Answers in a box, as mathematics tasks hand them in."""

    instruction: str = ""

    def extract(self, text: str) -> str | None:
        found = re.findall(r"\\boxed\{([^{}]*)\}", text)
        return found[-1] if found else None

    def normalise(self, answer: str) -> str:
        return answer.strip().lower()

    def shorten(self, text: str) -> str:
        answer = self.extract(text)
        return text if answer is None else answer


Line = str | Reply | Callable[[str], str]


@dataclass
class Stage:
    """Actors by agent name: one line for every call, or a list of lines, the last of which is repeated."""

    lines: dict[str, Line | Sequence[Line]]
    asked: list[tuple[Path, Call]] = field(default_factory=list)
    ran: list[ToolCall] = field(default_factory=list)

    def answer(self, path: Path, request: Call | ToolCall) -> Reply | ToolResult:
        if isinstance(request, ToolCall):
            self.ran.append(request)
            return ToolResult(f"ran {request.name}", ok="fail" not in str(dict(request.arguments)))
        before = sum(call.agent == request.agent for _, call in self.asked)
        self.asked.append((path, request))
        line = self.lines[request.agent]
        if isinstance(line, (list, tuple)):
            line = line[min(before, len(line) - 1)]
        if isinstance(line, Reply):
            return line
        text = line(request.messages[-1].content) if callable(line) else str(line)
        return Reply(text, tokens=len(text))

    def play(
        self,
        *steps: Node,
        question: str = "Q?",
        max_calls: int = 1000,
        max_tool_calls: int = 64,
        room: Room = CHARACTERS,
        delivery: Boxed = Boxed(),
        order: random.Random | None = None,
    ) -> RunResult:
        """Run a workflow of `steps` with short words."""
        process = run(
            Workflow("w", steps),
            question,
            delivery,
            wording=WORDS,
            max_calls=max_calls,
            max_tool_calls=max_tool_calls,
            room=room,
        )
        return drive(process, self.answer, order=order)

    def shown(self) -> list[tuple[str, str]]:
        """(agent, its newest message) of every call, in order."""
        return [(call.agent, call.messages[-1].content) for _, call in self.asked]

    def paths(self) -> list[tuple[str, Path]]:
        return [(call.agent, path) for path, call in self.asked]


WORDS = Wording(
    own_solution="yours",
    no_reply="(no reply)",
    left_out="(left out)",
    judge="judge",
    debate="debate",
    debate_judge="settle",
    reflection="check {response}",
    refinement="fix {response} given {reflection}",
    route="which of {routes}",
    final="final",
)
