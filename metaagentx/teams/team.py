"""The vertical team of M-GRPO (arXiv 2511.13288) as a process: a main agent whose tools are sub-agents.

The main agent reasons, delegates (several sub-tasks at once, several rounds) and answers. A sub-agent sees its
sub-task and nothing else of the rollout, uses its own tools, and reports back. Both are the interpreter's
conversations: only what happens when the main agent calls a tool is different here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from metaagentx.tasks.task import Verdict
from metaagentx.teams.options import MAIN, TeamOptions
from metaagentx.workflow.context import Context, Said
from metaagentx.workflow.conversation import Setting, converse
from metaagentx.workflow.ir import Agent
from metaagentx.workflow.ledger import SPENT, Ledger
from metaagentx.workflow.protocol import Fork, Outcome, Process, ToolCall, ToolResult, Turn


@dataclass(frozen=True, slots=True)
class SubAgent:
    """A kind of sub-agent: a name that the main agent calls, and what then goes to work."""

    name: str
    description: str  # for the main agent; "": it is told nothing
    role: str  # whose policy answers
    system_prompt: str
    tools: tuple[str, ...] = ()
    max_turns: int = 4  # replies that may call tools; one more gives the report

    @property
    def text(self) -> str:
        """The sub-agent as a model is told of it, like any tool: one line of JSON."""
        task = {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]}
        return json.dumps({"name": self.name, "description": self.description, "parameters": task}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Team:
    """Who works together. Without `subs` the main agent is on its own: the single-agent baseline."""

    system_prompt: str  # the main agent's
    subs: tuple[SubAgent, ...]
    rounds: int = 4  # replies of the main agent that may delegate; one more gives the answer
    errands: int = 8  # sub-tasks of one rollout; the main agent is told where it asks for more
    calls: int = 16  # replies that one sub-task may take
    tool_calls: int = 16  # tools that one agent may run
    tools: tuple[str, ...] = ()  # the main agent's own

    @classmethod
    def of(cls, options: TeamOptions) -> Team:
        """The team that a config describes."""
        subs = [
            SubAgent(name, sub.description, sub.role, sub.system_prompt, sub.tools, sub.max_turns)
            for name, sub in sorted(options.subs.items())
        ]
        bounds = options.rounds, options.errands, options.calls, options.tool_calls
        return cls(options.system_prompt, tuple(subs), *bounds, options.tools)

    def sub(self, name: str) -> SubAgent:
        """The sub-agent of this name."""
        return next(sub for sub in self.subs if sub.name == name)


@dataclass(frozen=True, slots=True)
class Errand:
    """One sub-task: what was asked of whom, and what came back."""

    sub: str
    task: str
    said: Said
    turns: tuple[Turn, ...] = ()
    tokens: int = 0
    mark: Verdict | None = None  # how good the report is, in [0, 1], on its way; None: nobody can say


@dataclass(frozen=True, slots=True)
class Rollout:
    """One team's work on one question. `errands` are in the order in which the main agent asked for them."""

    said: Said  # the main agent's last message
    outcome: Outcome
    turns: tuple[Turn, ...]  # the main agent's
    tokens: int  # generated, all agents together
    refused: int  # sub-tasks beyond the bound on their number
    errands: tuple[Errand, ...]


Delegate: TypeAlias = Callable[[Sequence[tuple[SubAgent, str]], str], Process[tuple[Errand, ...]]]
"""Has sub-tasks done side by side, and gives their ends in order. The text names this round: an axis of a fork."""

Marker: TypeAlias = Callable[[Errand], Process[Verdict | None]]
"""Begins to mark a report, perhaps by asking a policy."""


@dataclass(slots=True)
class _Foreman(Ledger):
    """The main agent's account, in which a call may be a sub-task."""

    team: Team = field(kw_only=True)
    delegate: Delegate = field(kw_only=True)
    errands: list[Errand] = field(default_factory=list)
    refused: int = 0  # sub-tasks

    def use_tools(self, calls: Sequence[ToolCall]) -> Process[tuple[ToolResult, ...]]:
        """The main agent's own tools first, side by side; then its sub-tasks."""
        own = [call for call in calls if call.name in self.team.tools]
        ran = iter((yield from Ledger.use_tools(self, own)) if own else ())
        told = iter((yield from self._delegate([call for call in calls if call.name not in self.team.tools])))
        return tuple(next(ran if call.name in self.team.tools else told) for call in calls)

    def _delegate(self, calls: Sequence[ToolCall]) -> Process[list[ToolResult]]:
        asked = [(self.team.sub(call.name), call.arguments.get("task")) for call in calls]
        sound = [(sub, task.strip()) for sub, task in asked if isinstance(task, str) and task.strip()]
        taken = sound[: self.team.errands - len(self.errands)]
        done = (yield from self.delegate(taken, self.new_axis())) if taken else ()
        self.refused += len(sound) - len(taken)
        self.errands += done

        results = iter([*map(_report, done), *(SPENT,) * (len(sound) - len(taken))])
        return [next(results) if isinstance(task, str) and task.strip() else _UNSOUND for _, task in asked]


_UNSOUND = ToolResult('a sub-task is a text: {"task": "..."}', ok=False)


def _report(errand: Errand) -> ToolResult:
    """What the main agent is told of a sub-task."""
    if errand.said.is_silent:
        return ToolResult(f"{errand.sub} gave no report ({errand.said.outcome.value})", ok=False)
    return ToolResult(errand.said.text)


def work(question: str, team: Team, setting: Setting, delegate: Delegate) -> Process[Rollout]:
    """One rollout of the main agent. `setting.role` is its own."""
    ledger = _Foreman(team.rounds + 1, team.tool_calls, team=team, delegate=delegate)
    names = *(sub.name for sub in team.subs), *team.tools
    agent = Agent(MAIN, team.system_prompt, names, team.rounds if names else 1)
    said = yield from converse(agent, Context(question), setting, ledger)
    return Rollout(
        said=said,
        outcome=_outcome(said),
        turns=tuple(ledger.turns),
        tokens=ledger.tokens + sum(errand.tokens for errand in ledger.errands),
        refused=ledger.refused,
        errands=tuple(ledger.errands),
    )


def run_errand(sub: SubAgent, task: str, team: Team, setting: Setting, marker: Marker) -> Process[Errand]:
    """One sub-task, done by a sub-agent that sees nothing else of the rollout. `setting.role` is its own."""
    ledger = Ledger(team.calls, team.tool_calls)
    agent = Agent(sub.name, sub.system_prompt, sub.tools, sub.max_turns)
    said = yield from converse(agent, Context(task), setting, ledger)
    errand = Errand(sub.name, task, said, tuple(ledger.turns), ledger.tokens)
    return replace(errand, mark=(yield from marker(errand)))


def in_this_process(team: Team, settings: Mapping[str, Setting], marker: Marker) -> Delegate:
    """Sub-agents that run beside their main agent, in the same program. `settings`: by role."""

    def delegate(asked: Sequence[tuple[SubAgent, str]], axis: str) -> Process[tuple[Errand, ...]]:
        branches = tuple(run_errand(sub, task, team, settings[sub.role], marker) for sub, task in asked)
        done: tuple[Errand, ...] = yield Fork(branches, axis, amid=True)
        return done

    return delegate


def _outcome(said: Said) -> Outcome:
    if said.is_silent:
        return said.outcome
    return Outcome.UNPARSABLE if said.answer is None else Outcome.OK
