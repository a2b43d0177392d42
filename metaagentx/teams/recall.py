"""What a main agent's policy and tools answered, kept by its server until the step is trained and saved.

The web changes, and programs draw at random. A step that is played again has to come out as it did, or its sub-tasks
would not be those that are in the store: so a call is answered as it was the first time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path as File
from typing import TypeVar

from metaagentx.rollout.at_work import Tools
from metaagentx.rollout.identity import Path
from metaagentx.teams.database import Execute, Sqlite
from metaagentx.teams.errands import PUT
from metaagentx.workflow.protocol import Fork, Process, ToolCall, ToolCalls, ToolResult

T = TypeVar("T")
ASK = "<ask>"  # the tool that runs a call under a key: no name that a model could write

TABLE = """CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, step BIGINT NOT NULL, call TEXT NOT NULL, result TEXT NOT NULL)"""
KEEP = """INSERT INTO answers (key, step, call, result) VALUES (:key, :step, :call, :result)
    ON CONFLICT (key) DO NOTHING"""
KNOWN = "SELECT call, result FROM answers WHERE key = :key"
FORGET = "DELETE FROM answers WHERE step < :step"


def placed(process: Process[T], step: int, path: Path = ()) -> Process[T]:
    """`process`, whose calls of tools say where they stand: in which step, on which path of forks, and which of it."""
    numbers, value = itertools.count(), None
    while True:
        try:
            request = process.send(value)
        except StopIteration as stop:
            return stop.value
        if isinstance(request, Fork):
            each = enumerate(request.branches)
            branches = tuple(placed(branch, step, (*path, (request.axis, index))) for index, branch in each)
            request = dataclasses.replace(request, branches=branches)
        elif isinstance(request, ToolCalls):
            calls = [(call, _key(step, path, next(numbers))) for call in request.calls]
            request = ToolCalls(tuple(_asked(call, step, key) for call, key in calls))
        value = yield request


def _key(step: int, path: Path, number: int) -> str:
    return "/".join([f"{step:07}", *(f"{axis} {index}" for axis, index in path), f"{number}"])


def _asked(call: ToolCall, step: int, key: str) -> ToolCall:
    """A call under its key; a sub-task has one of its own, and its report is in the store."""
    return call if call.name == PUT else ToolCall(ASK, {"call": call, "step": step, "key": key}, call.agent)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call under a key was answered in a step, both as text."""

    key: str
    step: int
    call: str
    result: str


class Answers:
    """Answers by key, in a file that one process has at a time."""

    def __init__(self, path: File, who: str = "this program") -> None:
        """Raises ValueError: the file cannot be used there."""
        self._database = Sqlite(path, who, alone=True)
        self._database.run(lambda execute: execute(TABLE, {}))

    def close(self) -> None:
        self._database.close()

    def get(self, key: str, call: str) -> str | None:
        """What `call` was answered; None if it was not. Raises ValueError if another call was made under `key`."""
        found = self._database.look(KNOWN, {"key": key})
        return _result(key, call, found[0]) if found else None

    def keep(self, answers: Sequence[Answer]) -> list[str]:
        """Keep answers, but those whose calls have one; returns the results that are kept. Raises as `get` does."""

        def work(execute: Execute) -> list[str]:
            for answer in answers:
                execute(KEEP, dataclasses.asdict(answer))
            found = [execute(KNOWN, {"key": answer.key}).found[0] for answer in answers]
            return [_result(answer.key, answer.call, row) for answer, row in zip(answers, found, strict=True)]

        return self._database.run(work) if answers else []

    def forget(self, step: int) -> None:
        """Let go of all steps before `step`, which are not played again."""
        self._database.run(lambda execute: execute(FORGET, {"step": step}))


def _text(call: ToolCall) -> str:
    return json.dumps([call.name, call.arguments, call.agent], sort_keys=True)


def _result(key: str, call: str, found: tuple) -> str:
    known, result = found
    if known != call:
        raise ValueError(f"call {key} was {known} when this step was played before; now it is {call}")
    return result


class Recalled:
    """Tools that answer a call under a key (`ASK`) as they did before, or run it and keep what comes of it.

    A call that was under way when its server was killed had no answer that anybody saw: it is run again. `submit`
    and its futures raise where the server must end: what the file raised, or ValueError where a key had another call.
    """

    def __init__(self, tools: Tools, answers: Answers) -> None:
        self._tools, self._answers = tools, answers

    def submit(self, call: ToolCall) -> Future[ToolResult]:
        """Run a tool, or recall what it said."""
        if call.name != ASK:
            return self._tools.submit(call)
        key, step, asked = call.arguments["key"], call.arguments["step"], call.arguments["call"]
        future: Future[ToolResult] = Future()
        known = self._answers.get(key, _text(asked))
        if known is not None:
            future.set_result(ToolResult(*json.loads(known)))
            return future

        def keep(ended: Future[ToolResult]) -> None:
            try:
                result = ended.result()
                # ASCII: what a page holds need not be text to a database.
                said = json.dumps([result.text, result.ok])
                (kept,) = self._answers.keep([Answer(key, step, _text(asked), said)])
                future.set_result(ToolResult(*json.loads(kept)))
            except BaseException as error:  # the thread that waits has to know
                future.set_exception(error)

        self._tools.submit(asked).add_done_callback(keep)
        return future
