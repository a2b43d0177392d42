"""A task over records in memory: questions in an endless order, deliveries by domain, answers kept inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from metaagentx.tasks.gym import SPLITS, Record, digest
from metaagentx.tasks.leak import gives_away
from metaagentx.tasks.order import position
from metaagentx.tasks.task import Delivery, Demonstration, Question, Verdict
from metaagentx.workflow.protocol import Message


class RecordTask:
    """A `task.Task` whose parts are given."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, list[Record]],
        *,
        deliveries: Mapping[str, Delivery],
        grade: Callable[[Record, str], Verdict],
        designer_prompt: Callable[[Question], str],
        teach: Callable[[int, int], Demonstration],
    ) -> None:
        """
        Args:
          splits: records by split; a split that is missing is empty.
          deliveries: how an answer is handed in, by domain.
          grade: begins to grade the normal form of an answer.
          designer_prompt: the system prompt of a designer.
          teach: the demonstration of (seed, number).
        """
        self.name = name
        self.kinds = tuple(dict.fromkeys(record.kind for records in splits.values() for record in records))
        self._splits = {split: splits.get(split, []) for split in SPLITS}
        self._deliveries, self._grade = deliveries, grade
        self._designer_prompt, self._teach = designer_prompt, teach
        self._by_text = {digest(record.question): record for records in self._splits.values() for record in records}
        self._by_id = {record.id: record for records in self._splits.values() for record in records}

    def size(self, split: str) -> int:
        """How many distinct questions a split holds."""
        return len(self._records(split))

    def question(self, split: str, index: int, *, seed: int = 0) -> Question:
        """The question at `index` of the endless order given by `seed`; seed < 0: the stored order."""
        records = self._records(split)
        if not records:
            raise IndexError(f"this task has no {split} questions")
        if seed < 0 and not 0 <= index < len(records):
            raise IndexError(f"index must be from 0 to {len(records) - 1} in the stored order, not {index}")
        return asked(records[index if seed < 0 else position(seed, index, len(records))])

    def find(self, prompt: str) -> Question | None:
        """The question that reads `prompt`, of whatever split; None if this task has no such question."""
        record = self._by_text.get(digest(prompt))
        return None if record is None else asked(record)

    def delivery(self, question: Question) -> Delivery:
        """How an answer to this question is handed in."""
        return self._deliveries[question.domain]

    def grading(self, question: Question, answer: str | None) -> Verdict:
        """Begin to grade the answer's normal form, so that equal votes get equal grades."""
        if question.id not in self._by_id:
            raise KeyError(f"question {question.id!r} is not of this task")
        if answer is None:
            return lambda: 0.0
        return self._grade(self._by_id[question.id], self.delivery(question).normalise(answer))

    def grade(self, question: Question, answer: str | None) -> float:
        """The verdict, waited for."""
        return self.grading(question, answer)()

    def leaks(self, question: Question, text: str) -> bool:
        """See `leak.gives_away`; programs are graded by tests and have no answer to give away."""
        record = self._by_id[question.id]
        return record.domain != "code" and gives_away(record.answer, record.question, text)

    def designer_messages(self, question: Question) -> tuple[Message, ...]:
        """What a designer is shown: its instruction and the question."""
        return Message("system", self._designer_prompt(question)), Message("user", question.prompt)

    def demonstrations(self, seed: int, start: int, count: int) -> Sequence[Demonstration]:
        """Demonstrations number start..start+count, for both roles, on train questions."""
        return [self._teach(seed, number) for number in range(start, start + count)]

    def _records(self, split: str) -> list[Record]:
        if split not in self._splits:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        return self._splits[split]


def asked(record: Record) -> Question:
    """What a prompt may show of a record."""
    return Question(id=record.id, kind=record.kind, prompt=record.question, domain=record.domain)
