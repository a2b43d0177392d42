"""The contract between a task and everything else: questions out, answers graded, answers never shown.

A `Question` carries what a prompt may show and nothing more. The true answer stays inside the task, which only
ever says how good a given answer is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from metaagentx.workflow.protocol import Delivery, Message

__all__ = ["Delivery", "Demonstration", "GradingFailed", "Question", "Task", "Verdict"]

Verdict: TypeAlias = Callable[[], float]
"""A grade in [0, 1] on its way: called, it waits. It raises GradingFailed where the fault is the grader's own."""


class GradingFailed(RuntimeError):
    """The grader itself broke down: nothing is known of the answer, so its sample must not count."""


@dataclass(frozen=True, slots=True)
class Question:
    """One item of a task. `kind` is the family it belongs to (what tables and reports group by)."""

    id: str
    kind: str
    prompt: str
    domain: str  # "mathematics" | "code" | "qa" | "text"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One conversation to imitate, for one role. Loss falls on the assistant's messages only."""

    role: str  # "designer" | "executor", or a role of a team
    messages: tuple[Message, ...]
    kind: str


class Task(Protocol):
    """Questions with verifiable answers, in splits that are disjoint by question ("train", "validation", "test")."""

    name: str

    def size(self, split: str) -> int:
        """How many distinct questions a split holds."""
        ...

    def question(self, split: str, index: int, *, seed: int = 0) -> Question:
        """The question at `index` of the endless order given by `seed`: a function of (split, seed, index) alone.

        Each pass over the split is a new permutation. `seed` < 0: the stored order (evaluation).
        """
        ...

    def find(self, prompt: str) -> Question | None:
        """The question that reads `prompt`, of whatever split; None if there is none."""
        ...

    def delivery(self, question: Question) -> Delivery:
        """How an answer to this question is handed in: a task may mix mathematics, words and code."""
        ...

    def grading(self, question: Question, answer: str | None) -> Verdict:
        """Begin to grade an extracted answer; None gets 0. Many may be under way. Never raises on hostile text."""
        ...

    def leaks(self, question: Question, text: str) -> bool:
        """Whether `text` holds the true answer where the question does not. Linear time on hostile text."""
        ...

    def designer_messages(self, question: Question) -> tuple[Message, ...]:
        """What a designer is shown."""
        ...

    def demonstrations(self, seed: int, start: int, count: int) -> Sequence[Demonstration]:
        """Demonstrations number start..start+count of the teacher, every one checked by the verifier.

        A function of (seed, number) alone, drawn on train questions only.
        """
        ...
