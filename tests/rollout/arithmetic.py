"""A task and a language small enough to compute every reward by hand."""

from __future__ import annotations

from collections.abc import Sequence

from metaagentx.rollout.language import Language
from metaagentx.tasks.task import Delivery, Demonstration, Question, Verdict
from metaagentx.workflow.ir import Limits, Role
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Message


class Boxed:
    """The answer is what follows the last "="."""

    instruction = ""

    def extract(self, text: str) -> str | None:
        return text.rsplit("=", 1)[1] if "=" in text else None

    def normalise(self, answer: str) -> str:
        return answer.strip()

    def shorten(self, text: str) -> str:
        return text


class Sums:
    """The question "1+2" has the answer "3"."""

    name = "sums"

    def size(self, split: str) -> int:
        return 10

    def question(self, split: str, index: int, *, seed: int = 0) -> Question:
        return Question(f"{index}", "even" if index % 2 == 0 else "odd", f"{index}+2", "mathematics")

    def delivery(self, question: Question) -> Delivery:
        return Boxed()

    def grading(self, question: Question, answer: str | None) -> Verdict:
        return lambda: float(answer == str(int(question.id) + 2))

    def leaks(self, question: Question, text: str) -> bool:
        return str(int(question.id) + 2) in text.split()

    def designer_messages(self, question: Question) -> tuple[Message, ...]:
        return (Message("system", "D"), Message("user", question.prompt))

    def demonstrations(self, seed: int, start: int, count: int) -> Sequence[Demonstration]:
        return ()


LANGUAGE = Language(
    palette={"solve": Role("S"), "tool": Role("T", tools=("add",))},
    tools=frozenset({"add"}),
    limits=Limits(),
    wording=Wording(),
    tool_texts={},
)
