"""What can be chosen about a team. Bad values are errors that name their key."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from metaagentx.learn.align import AlignOptions

MAIN = "main"  # the main agent's name, and its role
JUDGE = "judge"  # the name of the agent that marks reports
MOST = 999  # sub-tasks of a rollout: their names have three digits for the number, so that they sort


def _not_negative(section: str, options: object, *keys: str) -> None:
    for key in keys:
        if getattr(options, key) < 0:
            raise ValueError(f"{section}.{key} must be 0 or above, not {getattr(options, key)}")


@dataclass(frozen=True, slots=True)
class SubAgentOptions:
    """A kind of sub-agent. Its key among `team.subs` is the name by which the main agent calls it."""

    description: str = ""  # what the main agent is told of it; "": nothing, its policy knows
    role: str = "sub"  # whose policy answers
    system_prompt: str = ""
    tools: tuple[str, ...] = ()  # of the task's toolbox
    max_turns: int = 4  # replies that may call tools; one more gives the report

    def check(self, name: str) -> None:
        """Raises ValueError, naming the key, where the sub-agent of this name cannot have these."""
        if self.role in ("", MAIN):
            raise ValueError(f"team.subs.{name}.role must name a role other than the main agent's, not {self.role!r}")
        if self.max_turns < 1:
            raise ValueError(f"team.subs.{name}.max_turns must be at least 1, not {self.max_turns}")


@dataclass(frozen=True, slots=True)
class MainReward:
    """`format * f + correct * c`, and 0 where the form f is 0."""

    format: float = 0.1
    correct: float = 0.9

    def __post_init__(self) -> None:
        _not_negative("team.main_reward", self, "format", "correct")


@dataclass(frozen=True, slots=True)
class SubReward:
    """`format * f + correct * c + local * l`, and 0 where the form f is 0; c is the rollout's, l the report's own."""

    format: float = 0.1
    correct: float = 0.4
    local: float = 0.5

    def __post_init__(self) -> None:
        _not_negative("team.sub_reward", self, "format", "correct", "local")


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """How servers of one policy each work together; a run in one process reads none of it."""

    depth: int = 64  # sub-tasks of one policy that wait or are worked on at a time; the rest is put later
    workers: int = 32  # sub-tasks that a server works on side by side
    lease_seconds: float = 60.0  # after which a server that says nothing has lost its sub-tasks to whoever comes next
    attempts: int = 3  # failures that servers report of a sub-task before it is a dead letter
    losses: int = 20  # leases of it that end without a word (its server was killed) before it is one
    staleness: int = 0  # updates that the weights which do a sub-task may be behind its step; 0: servers go in step
    beat_seconds: float = 2.0  # between two signs of life; a server without one for three times as long is missed

    def __post_init__(self) -> None:
        for key in ("depth", "workers", "attempts", "losses"):
            if getattr(self, key) < 1:
                raise ValueError(f"team.exchange.{key} must be at least 1, not {getattr(self, key)}")
        for key in ("lease_seconds", "beat_seconds"):
            if not getattr(self, key) > 0:
                raise ValueError(f"team.exchange.{key} must be above 0, not {getattr(self, key)}")
        if self.staleness < 0:
            raise ValueError(f"team.exchange.staleness must be 0 or above, not {self.staleness}")


@dataclass(frozen=True, slots=True)
class TeamOptions:
    """A main agent, its sub-agents, and what their work earns (M-GRPO, arXiv 2511.13288)."""

    system_prompt: str = ""  # the main agent's
    tools: tuple[str, ...] = ()  # the main agent's own, of the task's toolbox
    subs: Mapping[str, SubAgentOptions] = field(default_factory=dict)  # by name; none: the main agent is on its own
    rollouts: int = 8  # K: of each question
    rounds: int = 4  # replies of the main agent that may delegate; one more gives the answer
    errands: int = 8  # sub-tasks of one rollout; the main agent is told where it asks for more
    calls: int = 16  # replies that one sub-task may take
    tool_calls: int = 16  # tools that one agent may run in a rollout or sub-task
    prompt_tokens: int = 0  # longest prompt of an agent: results are shortened; 0: what the engine has room for
    main_reward: MainReward = MainReward()
    sub_reward: SubReward = SubReward()
    local: Literal["verifier", "judge"] = "verifier"  # who marks a report: the task, where it can; or a policy
    judge_role: str = JUDGE  # whose policy marks; only read with "judge"
    judge_prompt: str = "How good is this report on its task? Give only a number, from 0 (useless) to 1 (right)."
    align: AlignOptions = AlignOptions()
    exchange: ExchangeOptions = ExchangeOptions()

    def __post_init__(self) -> None:
        for name, sub in self.subs.items():
            if not name.isidentifier() or name in (MAIN, JUDGE):
                raise ValueError(
                    f"team.subs: a name has letters, digits and '_', and is not {MAIN!r} or {JUDGE!r}: {name!r}"
                )
            sub.check(name)
        if both := sorted(self.subs.keys() & set(self.tools)):
            raise ValueError(f"team.subs.{both[0]}: {both[0]!r} is among team.tools too; a name calls one of them")
        for key in ("rollouts", "rounds", "errands", "calls", "tool_calls"):
            if getattr(self, key) < 1:
                raise ValueError(f"team.{key} must be at least 1, not {getattr(self, key)}")
        if self.errands > MOST:
            raise ValueError(f"team.errands must be at most {MOST}, not {self.errands}")
        if self.prompt_tokens < 0:
            raise ValueError(f"team.prompt_tokens must be 0 or above, not {self.prompt_tokens}")
        if not self.judge_role:
            raise ValueError("team.judge_role must name a role")

    def check(self, tools: Set[str]) -> None:
        """That its agents have no tool but these. Raises ValueError, naming the key."""
        agents = {"team": self.tools} | {f"team.subs.{name}": sub.tools for name, sub in self.subs.items()}
        for key, own in agents.items():
            if missing := [tool for tool in own if tool not in tools]:
                given = ", ".join(sorted(tools))
                raise ValueError(f"{key}.tools: there is no tool {missing[0]!r}; task.tools gives {given}")

    @property
    def sub_roles(self) -> tuple[str, ...]:
        """Every role that a kind of sub-agent has, once, sorted."""
        return tuple(sorted({sub.role for sub in self.subs.values()}))

    @property
    def learners(self) -> tuple[str, ...]:
        """Every role that has rewards to learn from: the main agent's and its sub-agents'."""
        return (MAIN, *self.sub_roles)

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role of the team: the main agent's, its sub-agents', and the judge's where there is one."""
        judge = (self.judge_role,) if self.local == "judge" and self.subs else ()
        return tuple(dict.fromkeys((*self.learners, *judge)))
