"""The intermediate representation of a design: immutable, complete, free of code.

A design is one `Workflow`. Conditions and routing rules are data. Nothing here can hold a callable.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Contains:
    """The latest message contains `text`."""

    text: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class AnswerAgrees:
    """The last two messages that hold an answer, within this loop or graph, agree (false with fewer than two)."""


@dataclass(frozen=True, slots=True)
class VerdictAccepts:
    """The latest message's verdict accepts."""


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Condition, ...]


Condition: TypeAlias = Contains | AnswerAgrees | VerdictAccepts | Not | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Agent:
    """One executor call; with tools, a conversation of at most `max_turns` replies and one forced final turn.

    `task`: what this agent is asked instead of the question: a template over `{question}` and the answers of earlier
    steps by name ("{a} - 7"). It is how a designer decomposes.
    """

    name: str
    system_prompt: str = ""
    tools: tuple[str, ...] = ()
    max_turns: int = 10
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members run in parallel on the same context and vote on the normalised answer."""

    name: str
    agents: tuple[Node, ...]
    strategy: Literal["majority_vote", "weighted_vote", "consensus"] = "majority_vote"
    judge: Node | None = None
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reflection:
    """Answer, critique, refine; stops on an accepting verdict or when the answer stops changing."""

    name: str
    agent: Node
    critic: Node | None = None  # None: the agent is its own critic
    iterations: int = 2
    reflection_prompt: str | None = None
    refinement_prompt: str | None = None
    include_history: bool = False


@dataclass(frozen=True, slots=True)
class Debate:
    """Round 1 in parallel on the question, later rounds see the round before; the judge sees the last."""

    name: str
    debaters: tuple[Node, ...]
    judge: Node | None = None  # None: the first debater
    rounds: int = 2


@dataclass(frozen=True, slots=True)
class KeywordRule:
    """The first keyword that occurs in the latest message (case ignored) picks its route."""

    keywords: tuple[tuple[str, str], ...]  # (keyword, route)


@dataclass(frozen=True, slots=True)
class ConditionRule:
    """The first condition that holds picks its route."""

    cases: tuple[tuple[Condition, str], ...]  # (condition, route)


@dataclass(frozen=True, slots=True)
class AgentRule:
    """An agent's reply names the route."""

    agent: Agent


@dataclass(frozen=True, slots=True)
class Router:
    """Picks one branch."""

    name: str
    routes: tuple[tuple[str, Node], ...]
    rule: KeywordRule | ConditionRule | AgentRule
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """Repeats its body until the condition holds, at most `max_iterations` times."""

    name: str
    body: tuple[Node, ...]
    until: Condition
    max_iterations: int = 5


@dataclass(frozen=True, slots=True)
class Branch:
    """Runs its body if the condition holds."""

    name: str
    condition: Condition
    body: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """`condition` None: always."""

    source: str
    target: str
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes joined by conditional edges, cycles allowed; the first matching edge wins."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    entry: str
    finish: tuple[str, ...]
    max_steps: int = 50


@dataclass(frozen=True, slots=True)
class Workflow:
    """Steps in sequence; the result is the last step's message. Also a node: a workflow may be a step of another."""

    name: str
    steps: tuple[Node, ...]

    def __str__(self) -> str:
        """The short form (docs/short_form.md), which reads back to the same workflow."""
        from metaagentx.workflow.short import print_short  # a printer of these types

        return print_short(self)


Node: TypeAlias = Agent | Ensemble | Reflection | Debate | Router | Loop | Branch | Graph | Workflow


class Refusal(StrEnum):
    """Why a design was refused."""

    SYNTAX = "syntax"
    NO_CODE = "no_code"
    NO_WORKFLOW = "no_workflow"
    UNKNOWN_NAME = "unknown_name"
    UNKNOWN_KEYWORD = "unknown_keyword"
    BAD_VALUE = "bad_value"
    UNBOUND_AGENT = "unbound_agent"
    EMPTY_ENSEMBLE = "empty_ensemble"
    CYCLE = "cycle"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    FORBIDDEN = "forbidden"
    UNSUPPORTED = "unsupported"
    EMPTY_WORKFLOW = "empty_workflow"
    MISSING_JUDGE = "missing_judge"
    UNKNOWN_TARGET = "unknown_target"


LONGEST_MESSAGE = 500  # characters of what a diagnosis or remark says: what it quotes may be of any length


def brief(message: str) -> str:
    """`message`, cut where it is too long."""
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 4] + " ..."


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A refused design: what, where (line and column from 1 in the script) and what would be right."""

    refusal: Refusal
    message: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Remark:
    """Something accepted but not as written: an ignored keyword, an unknown tool left out, a renamed agent."""

    message: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Design:
    """A design that can run: its workflow and what was accepted with a warning."""

    workflow: Workflow
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a design may cost at most, checked statically before it runs."""

    agents: int = 64
    model_calls: int = 256
    iterations: int = 10
    steps: int = 50
    turns: int = 20


@dataclass(frozen=True, slots=True)
class Role:
    """One entry of a palette: a role that a short-form design may name without writing its prompt."""

    system_prompt: str
    tools: tuple[str, ...] = ()
    max_turns: int = 2
