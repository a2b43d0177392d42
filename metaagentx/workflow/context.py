"""What has been said so far in a run, as the next agent sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from metaagentx.workflow.protocol import Outcome, Reply
from metaagentx.workflow.template import QUESTION, fill


def after_thinking(text: str) -> str:
    """A reply without its hidden reasoning: what follows the last `</think>`."""
    return text.rpartition("</think>")[2]


@dataclass(frozen=True, slots=True)
class Said:
    """A node's message, without thoughts. `text` is empty where no reply came; `outcome` then says why."""

    name: str
    text: str
    answer: str | None
    outcome: Outcome

    @classmethod
    def silent(cls, name: str) -> Said:
        """The message of a node in which nothing was said."""
        return cls(name, "", None, Outcome.EMPTY)

    @classmethod
    def of(cls, name: str, reply: Reply, answer: str | None) -> Said:
        spoken = reply.outcome.spoken
        text = after_thinking(reply.text)
        if spoken and text.strip():
            return cls(name, text, answer, reply.outcome)
        return cls(name, "", None, Outcome.EMPTY if spoken else reply.outcome)

    @property
    def is_silent(self) -> bool:
        return not self.text


@dataclass(frozen=True, slots=True)
class Asked:
    """What a composite asks of an agent. Without `material` the text stands as it is, else its places are filled."""

    text: str
    material: tuple[tuple[str, str], ...] = ()

    def filled(self, question: str, show: Callable[[str], str]) -> str:
        """The request with its material as `show` shows it; the question is always shown whole."""
        if not self.material:
            return self.text
        places = {name: show(text) for name, text in self.material if f"{{{name}}}" in self.text}
        return fill(self.text, {QUESTION: question, **places})


@dataclass(frozen=True, slots=True)
class Context:
    """What an agent may be shown.

    `messages`: the latest message of every earlier step, oldest first (a step that runs again replaces its message).
    `history`: every message of the current loop, graph or outermost workflow, for conditions.
    `requests`: what a reflection, debate, vote or router around the agent asks of it, outermost first.
    """

    question: str
    messages: tuple[Said, ...] = ()
    history: tuple[Said, ...] = ()
    requests: tuple[Asked, ...] = ()

    def after(self, *said: Said) -> Context:
        """The context once `said` has been said."""
        names = {each.name for each in said}
        kept = tuple(message for message in self.messages if message.name not in names)
        return replace(self, messages=kept + said, history=self.history + said)

    def asking(self, request: str, **material: str) -> Context:
        """The context of an agent that is asked `request` on top of all else; `material` has places in it by name."""
        return replace(self, requests=(*self.requests, Asked(request, tuple(material.items()))))

    def fresh(self) -> Context:
        """The same context with an empty history: the start of a loop or graph."""
        return replace(self, history=())

    @property
    def latest(self) -> str:
        """The latest message, or the question where nothing has been said."""
        return self.messages[-1].text if self.messages else self.question

    def spliced(self, task: str, show: Callable[[str], str]) -> str:
        """`task` with the question and the answers of earlier steps by name; what holds no answer splices nothing.

        Answers are as `show` shows them, which is asked for the newest first.
        """
        wanted = [message for message in reversed(self.messages) if f"{{{message.name}}}" in task]
        answers = {message.name: show(message.answer or "") for message in wanted}
        return fill(task, {**answers, QUESTION: self.question}, missing="")
