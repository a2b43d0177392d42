"""Drives processes: an explicit table of generators, no threads and no event loop.

All branches of all forks advance as far as they can; then the tools that have ended are taken and every engine takes a
step, and what comes of both lets some branches advance again. A branch that asked for tools waits, and nobody else
does: only where nothing but tools is under way, the first of them to end is waited for. When a reply or a result comes
decides in which order branches go on, and nothing else: the ids of calls and the rows of trajectories are functions of
the fork paths alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaagentx.rollout.at_work import AtWork, Share, Tools, alone
from metaagentx.rollout.conversation import Conversation, Dialogue, as_mappings
from metaagentx.rollout.identity import AXES, Path, identify
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask, Sampled, Sampler, distinct
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.workflow.protocol import Call, Fork, Graft, Message, Outcome, Process, Reply, ToolCalls

T = TypeVar("T")

Rows: TypeAlias = list[tuple[tuple[int, ...], int, Conversation]]
"""Conversations that ended: where their task stands among all, and their number in it."""


@dataclass(slots=True, eq=False)
class Task:
    """One running generator."""

    process: Process[Any]
    path: Path
    order: tuple[int, ...]  # where it stands among all tasks: the number of the fork and of the branch, level by level
    step: int
    finished: Rows  # where its conversations go when it ends: shared by the branches of one root or graft
    parent: Task | None = None
    branch: int = 0  # its place in the parent's fork
    grafted: bool = False  # its parent gets its trajectories too
    calls: int = 0
    axes: list[str] = field(default_factory=list)  # of its forks so far
    conversations: dict[int, Conversation] = field(default_factory=dict)
    speaking: tuple[Sampler, int] | None = None  # of its last call: who answered, and the conversation's number
    turns: dict[str, int] = field(default_factory=dict)  # conversations begun so far, by agent
    results: list[Any] = field(default_factory=list)  # of the open fork's branches, or of the tools asked for
    joined: dict[str, int] = field(default_factory=dict)  # `turns` as its branches leave them
    open: int = 0  # branches or tools still running
    value: Any = None  # what the root returned

    def hold(self) -> None:
        """Its last conversation goes on when what it asks for is done."""
        if self.speaking is not None:
            sampler, number = self.speaking
            sampler.hold(number)

    def wait(self, count: int) -> None:
        """Expect `count` results."""
        self.results, self.open = [None] * count, count

    def take(self, index: int, result: Any) -> bool:
        """Keep the result at `index`; whether it was the last to come."""
        self.results[index] = result
        self.open -= 1
        return not self.open


@dataclass(slots=True)
class Spent:
    """What a run used."""

    calls: int = 0
    tokens: int = 0
    tool_calls: int = 0
    tool_failures: int = 0  # tools that ended with an error
    tool_seconds: float = 0.0  # from the start of each tool to its result, all together
    idle_seconds: float = 0.0  # in which nothing but tools was under way
    refused: int = 0  # calls that got no sample: too long
    failed: int = 0  # calls that got none by our own fault: a server that does not answer


@dataclass(slots=True)
class Table:
    """The tasks of one `run`, and everything they share."""

    engines: Mapping[str, Sampler]
    chat: Dialogue
    tools: AtWork
    sampling: Mapping[str, SamplingOptions]
    seed: int
    ready: deque[tuple[Task, Any]] = field(default_factory=deque)
    waiting: dict[int, tuple[Task, Call, Conversation, NDArray[np.int32]]] = field(default_factory=dict)
    calling: dict[int, tuple[Task, int]] = field(default_factory=dict)  # by a tool's number: whose, and which of it
    encoded: dict[tuple[Message, ...], NDArray[np.int32]] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    tickets: int = 0
    dialogues: int = 0

    def advance(self, task: Task, value: Any) -> None:
        """Give `task` the result it waits for and let it run until it must wait again."""
        while True:
            try:
                request = task.process.send(value)
            except StopIteration as stop:
                return self.finish(task, stop.value)
            if isinstance(request, ToolCalls):
                task.hold()
                if request.calls:
                    return self.use_tools(task, request)
                value = ()
            elif isinstance(request, Fork):
                if request.amid:
                    task.hold()
                if request.branches:
                    return self.fork(task, request)
                value = ()
            elif isinstance(request, Graft):
                return self.graft(task, request)
            elif isinstance(request, Call):
                return self.call(task, request)
            else:
                raise TypeError(f"a process may yield Call, ToolCalls, Fork or Graft, not {type(request).__name__}")

    def fork(self, task: Task, request: Fork) -> None:
        """Start the branches; `task` goes on when all have returned."""
        if request.axis in task.axes:
            raise ValueError(f"axis {request.axis!r} is used twice by one process: its calls would share random keys")
        task.wait(len(request.branches))
        task.joined = dict(task.turns)
        for index, branch in enumerate(request.branches):
            path = (*task.path, (request.axis, index))
            turns = {} if request.axis in AXES else dict(task.turns)
            order = (*task.order, len(task.axes), index)
            begun = Task(branch, path, order, task.step, task.finished, task, index, turns=turns)
            self.ready.append((begun, None))
        task.axes.append(request.axis)

    def graft(self, task: Task, request: Graft) -> None:
        """Start a process that stands elsewhere; `task` goes on when it has returned."""
        self.ready.append((Task(request.process, request.path, (), request.step, [], task, grafted=True), None))

    def finish(self, task: Task, value: Any) -> None:
        """Hand a task's conversations over and its value to its parent."""
        for number, conversation in task.conversations.items():
            self.engines[conversation.role].release(conversation.number)
            if conversation.replies:
                task.finished.append((task.order, number, conversation))
        parent = task.parent
        if parent is None:
            task.value = value
            return
        if task.grafted:
            self.ready.append((parent, (value, trajectories(task.finished))))
            return
        last = parent.take(task.branch, value)
        for agent, count in task.turns.items():
            parent.joined[agent] = max(parent.joined.get(agent, 0), count)
        if last:
            if task.path[-1][0] not in AXES:
                parent.turns = parent.joined
            self.ready.append((parent, tuple(parent.results)))

    def use_tools(self, task: Task, request: ToolCalls) -> None:
        """Have the tools run; `task` goes on when all have ended."""
        task.wait(len(request.calls))
        for index, call in enumerate(request.calls):
            self.calling[self.tools.begin(call)] = task, index

    def take_tools(self, *, patient: bool) -> None:
        """Wake the tasks whose tools have all ended. `patient`: nothing else is under way."""
        begun = time.perf_counter()
        for number, result, seconds in self.tools.take(patient=patient):
            task, index = self.calling.pop(number)
            self.spent.tool_calls += 1
            self.spent.tool_failures += not result.ok
            self.spent.tool_seconds += seconds
            if task.take(index, result):
                self.ready.append((task, tuple(task.results)))
        if patient:
            self.spent.idle_seconds += time.perf_counter() - begun

    def call(self, task: Task, request: Call) -> None:
        """Submit a call."""
        engine = self.engines[request.role]
        conversation = task.conversations.get(request.conversation)
        if conversation is None:
            turn = task.turns.get(request.agent, 0)
            task.turns[request.agent] = turn + 1
            conversation = Conversation(task.path, request.role, request.agent, turn, engine.version, self.dialogues)
            task.conversations[request.conversation] = conversation
            self.dialogues += 1

        if conversation.replies:
            prompt = conversation.extended(request.messages, self.chat)
        else:
            prompt = self.encode(request.messages)
        sampling = self.sampling[request.role]
        if request.max_tokens is not None and request.max_tokens < sampling.max_tokens:
            sampling = dataclasses.replace(sampling, max_tokens=request.max_tokens)
        self.waiting[self.tickets] = (task, request, conversation, prompt)
        ids = identify(task.path, task.calls, self.seed, task.step)
        conversation.messages += request.messages
        task.speaking = engine, conversation.number
        engine.submit(
            Ask(self.tickets, prompt, ids, sampling, request.role, conversation.number, tuple(conversation.messages))
        )
        self.tickets += 1
        self.spent.calls += 1
        task.calls += 1

    def encode(self, messages: tuple[Message, ...]) -> NDArray[np.int32]:
        """A first prompt; the M designs of a question and the N runs of a design ask the same, so it is kept."""
        ids = self.encoded.get(messages)
        if ids is None:
            ids = self.encoded[messages] = np.array(self.chat.begin(as_mappings(messages)), np.int32)
        return ids

    def receive(self, ticket: int, sampled: Sampled) -> None:
        """Put a sampled reply into its conversation and wake its task."""
        task, _, conversation, prompt = self.waiting.pop(ticket)
        if len(sampled.tokens):
            conversation.add(prompt, sampled)
        elif sampled.outcome is Outcome.FAILED:
            self.spent.failed += 1
        else:
            self.spent.refused += 1
        text = self.chat.decode(sampled.tokens.tolist()) if sampled.outcome.spoken else ""
        conversation.messages.append(Message("assistant", text))
        self.spent.tokens += len(sampled.tokens)
        self.ready.append((task, Reply(text, sampled.outcome, len(sampled.tokens))))


def trajectories(finished: Rows) -> list[Trajectory]:
    """One for each conversation, in the order of the fork paths."""
    return [conversation.trajectory() for _, _, conversation in sorted(finished, key=lambda entry: entry[:2])]


def run(
    process: Process[T],
    engines: Mapping[str, Sampler],
    chat: Dialogue,
    toolbox: Tools,
    sampling: Mapping[str, SamplingOptions],
    *,
    seed: int,
    step: int,
    share: Share = alone,
) -> tuple[T, list[Trajectory], Spent]:
    """Run `process` to its end.

    Returns its value, one trajectory per conversation in which anything was sampled (in the order of the fork paths;
    without those of grafts, which their processes were given), and what was spent. `engines` and `sampling` map roles;
    two roles may share an engine. `share` lets several processes that run this side by side see the same tools end at
    the same time. Where anything raises, the engines forget what they were asked.
    """
    root = Task(process, (), (), step, [])
    table = Table(engines, chat, AtWork(toolbox, share), sampling, seed)
    table.ready.append((root, None))
    several = distinct(engines)
    try:
        while table.ready or table.waiting or table.tools.underway:
            while table.ready:
                table.advance(*table.ready.popleft())
            if table.tools.underway:
                table.take_tools(patient=not table.waiting)
            if table.waiting:
                for engine in several:
                    for ticket, sampled in engine.step():
                        table.receive(ticket, sampled)
    except BaseException:  # the next run must not be handed what this one asked for
        for engine in several:
            engine.drop()
        raise
    return root.value, trajectories(root.finished), table.spent
