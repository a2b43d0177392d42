"""Every run of a workflow: the interpreter is driven through all combinations of a few telling replies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from metaagentx.workflow.bounds import Bounds
from metaagentx.workflow.interpreter import run
from metaagentx.workflow.ir import Workflow
from metaagentx.workflow.protocol import Call, Fork, Process, Reply, ToolCalls, ToolResult
from tests.workflow.acting import WORDS, Boxed

PER_CALL = 7  # tokens
CALL = '<tool_call>{"name": "calculator", "arguments": {}}</tool_call>'
# One that agrees, accepts and names the first route, and one that does none of it; two different answers.
REPLIES = ("\\boxed{1} yes r0 VERDICT: CORRECT", "\\boxed{2} no r1 VERDICT: INCORRECT")


@dataclass
class Choices:
    """A path through a tree of choices: taken again from `path`, and further on always the first."""

    path: list[tuple[int, int]] = field(default_factory=list)  # (choice, out of how many)
    at: int = 0

    def choose(self, count: int) -> int:
        if self.at == len(self.path):
            self.path.append((0, count))
        self.at += 1
        return self.path[self.at - 1][0]

    def following(self) -> Choices | None:
        """The next path in depth-first order; None after the last."""
        path = self.path[: self.at]
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        return Choices([*path[:-1], (path[-1][0] + 1, path[-1][1])]) if path else None


@dataclass
class Cost:
    """What one run took, counted by who answers it."""

    agents: int = 0
    replies: int = 0
    tokens: int = 0


def runs(workflow: Workflow, most: int) -> Iterator[tuple[Cost, int]]:
    """The cost and the longest chain of replies of every run; raises where there are more than `most`."""
    choices: Choices | None = Choices()
    for _ in range(most):
        if choices is None:
            return
        cost = Cost()
        process = run(workflow, "Q", Boxed(), wording=WORDS, max_calls=10**6)
        _, chain = _play(process, choices, cost)
        yield cost, chain
        choices = choices.following()
    raise OverflowError(f"more than {most} runs")


def _play(process: Process[Any], choices: Choices, cost: Cost) -> tuple[Any, int]:
    """The value of a process, and its longest chain of replies."""
    chain = 0
    answer: Any = None
    while True:
        try:
            request = process.send(answer)
        except StopIteration as stop:
            return stop.value, chain
        if isinstance(request, Call):
            options = (*REPLIES, CALL) if "armed" in request.agent else REPLIES
            cost.agents += request.turn == 0
            cost.replies += 1
            cost.tokens += PER_CALL
            chain += 1
            answer = Reply(options[choices.choose(len(options))], tokens=PER_CALL)
        elif isinstance(request, Fork):
            ended = [_play(branch, choices, cost) for branch in request.branches]
            chain += max(length for _, length in ended)
            answer = tuple(value for value, _ in ended)
        else:
            assert isinstance(request, ToolCalls)
            answer = tuple(ToolResult("3") for _ in request.calls)


def worst(workflow: Workflow, most: int) -> tuple[Bounds, int]:
    """The most that any run takes, and the most tokens that it generates."""
    found = [(cost.agents, cost.replies, chain, cost.tokens) for cost, chain in runs(workflow, most)]
    agents, replies, chain, tokens = (max(column) for column in zip(*found, strict=True))
    return Bounds(agents, replies, chain), tokens
