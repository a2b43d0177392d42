"""What a running workflow asks for and what it is told: the sans-IO protocol.

A run is a generator (a `Process`). It yields one `Request` at a time and receives its result:

    Call       -> Reply        one reply of a language model
    ToolCalls  -> tuple        the results of tools, which run side by side
    Fork       -> tuple        the return values of its branches, which run side by side
    Graft      -> tuple        the return value of a process that stands elsewhere, and its trajectories

It does no I/O, samples nothing and knows no threads: the same results always give the same run, so a run
can be replayed from a record. Whoever drives it (the scheduler, a test, a replay) is free in how and when
it answers, and may run all branches of all runs at once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class Outcome(StrEnum):
    """How a reply or a run ended. Every outcome keeps its sample: nothing is dropped for ending badly."""

    OK = "ok"
    STOPPED = "stopped"  # its text came to hold a stop string, which it keeps
    CUT = "cut"  # reached its bound on new tokens before it ended by itself
    EMPTY = "empty"  # ended without any visible text
    TOO_LONG = "too_long"  # the prompt does not fit; nothing was sampled
    OVER_BUDGET = "over_budget"  # a bound on calls, tokens or wall time was reached; nothing was sampled
    FAILED = "failed"  # our own fault (engine, sandbox): masked from training
    UNPARSABLE = "unparsable"  # (runs only) the last message holds no answer

    @property
    def spoken(self) -> bool:
        """Whether a reply that ended so has text."""
        return self in (Outcome.OK, Outcome.STOPPED, Outcome.CUT)

    @property
    def open(self) -> bool:
        """Whether the tokens of a reply that ended so lack the one that ends a turn."""
        return self in (Outcome.STOPPED, Outcome.CUT)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """Ask the policy of `role` for one reply.

    `messages` are only those that are new since the last reply in the same `conversation`; the driver keeps what
    came before as token ids (token in, token out: nothing is ever decoded and encoded again). A `conversation` is a
    number that is unique within the generator that yields it.
    """

    role: str  # "designer" | "executor", or a role of a team
    agent: str  # the agent's name in the design; "designer" for a designer
    messages: tuple[Message, ...]
    conversation: int = 0
    turn: int = 0  # which reply of this conversation, from 0
    max_tokens: int | None = None  # bound on new tokens; None: the driver's for this role


@dataclass(frozen=True, slots=True)
class Reply:
    """What a policy answered. `text` is empty unless `outcome` is OK, STOPPED or CUT."""

    text: str
    outcome: Outcome = Outcome.OK
    tokens: int = 0  # generated tokens, the end-of-turn token included


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Run the tool `name`. `arguments` is whatever the model wrote, decoded from JSON: hostile."""

    name: str
    arguments: Mapping[str, Any]
    agent: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back: its output, or what went wrong."""

    text: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Run several tools side by side; the result is the tuple of their `ToolResult`s, in the order of the calls.

    It also says that the conversation of the last `Call` goes on when this is done.
    """

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Run `branches` side by side; the result is the tuple of their return values, in order.

    `axis` names what the branches are: "question", "design" and "execution" in a rollout tree, "member" inside a
    workflow ("member#2" where the same generator forks a second time, and so on: no generator uses an axis twice).
    So the path of (axis, index) pairs from the root, with the count of a generator's own calls, identifies every
    call and seeds its randomness. `amid` says that the conversation of the last `Call` goes on when this is done.
    """

    branches: tuple[Process[Any], ...]
    axis: str = "member"
    amid: bool = False


@dataclass(frozen=True, slots=True)
class Graft:
    """Run `process` as if it stood at `path` in the run of `step`; the result is (its value, its trajectories).

    So a branch of a run can be run by another program that has its role's weights: ids and randomness are those that
    the branch would have had, and what it sampled is handed to whoever grafts it.
    """

    process: Process[Any]
    path: tuple[tuple[str, int], ...]  # (axis, index) of each fork from the root
    step: int


Request: TypeAlias = Call | ToolCalls | Fork | Graft
Process: TypeAlias = Generator[Request, Any, T]


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said in a run, kept for reading: a reply with what it was asked, or a tool's result."""

    agent: str
    messages: tuple[Message, ...]  # what the agent was newly shown
    reply: Reply
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    left_out: int = 0  # characters of earlier steps and of tools' results for which these messages had no room


@dataclass(frozen=True, slots=True)
class RunResult:
    """How one run of a workflow on one question ended."""

    text: str  # the last step's message
    answer: str | None  # what the task's extractor found in it
    outcome: Outcome
    calls: int = 0  # model calls made
    tool_calls: int = 0  # tools run
    refused_tool_calls: int = 0  # asked for beyond the bound on their number, and not run
    tokens: int = 0  # generated tokens, all calls together
    left_out: int = 0  # characters that were not shown for want of room, all turns together
    turns: tuple[Turn, ...] = field(default=())


class Delivery(Protocol):
    """How agents hand in an answer: what they are told, and how it is read back. The interpreter's view of a task."""

    @property
    def instruction(self) -> str:
        """Appended to every executor's system prompt; may be empty."""
        ...

    def extract(self, text: str) -> str | None:
        """The answer in a message, or None. Linear time on hostile text."""
        ...

    def normalise(self, answer: str) -> str:
        """Two answers are the same vote iff their normal forms are equal."""
        ...

    def shorten(self, text: str) -> str:
        """What later agents are shown of a message: its delivery block, else its answer, else its shortened text."""
        ...
