"""The tiny task: sums, products, divisors and words from reasoning-gym, as a `task.Task`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metaagentx.tasks.dataset import load, prepare
from metaagentx.tasks.gym import SPLITS, GymOptions, Record, digest, score
from metaagentx.tasks.order import position
from metaagentx.tasks.palette import DESIGNER_PROMPT
from metaagentx.tasks.task import Delivery, Demonstration, Question
from metaagentx.tasks.teacher import TeacherOptions, demonstrate
from metaagentx.workflow.protocol import Message


class GymTask:
    """Questions of `options`, prepared under `data_dir` on first use. Answers stay inside."""

    name = "gym"

    def __init__(self, options: GymOptions, data_dir: str | Path, delivery: Delivery, teacher: TeacherOptions) -> None:
        self.kinds = options.kinds
        self.delivery = delivery
        self._teacher = teacher
        self._splits = load(prepare(options, data_dir))
        self._by_text = {digest(record.question): record for records in self._splits.values() for record in records}
        self._by_id = {record.id: record for records in self._splits.values() for record in records}

    def size(self, split: str) -> int:
        """How many distinct questions a split holds."""
        return len(self._records(split))

    def question(self, split: str, index: int, *, seed: int = 0) -> Question:
        """The question at `index` of the endless order given by `seed`; seed < 0: the stored order, kinds in turn."""
        records = self._records(split)
        if seed < 0 and not 0 <= index < len(records):
            raise IndexError(f"index must be from 0 to {len(records) - 1} in the stored order, not {index}")
        record = records[index if seed < 0 else position(seed, index, len(records))]
        return Question(id=record.id, kind=record.kind, prompt=record.question, domain=record.domain)

    def find(self, prompt: str) -> Question | None:
        """The question that reads `prompt`, of whatever split; None if this task has no such question."""
        record = self._by_text.get(digest(prompt))
        return None if record is None else Question(record.id, record.kind, record.question, record.domain)

    def grade(self, question: Question, answer: str | None) -> float:
        """1.0 if the verifier gives full marks to the answer's normal form, else 0.0: equal votes get equal grades."""
        if question.id not in self._by_id:
            raise KeyError(f"question {question.id!r} is not of this task")
        if answer is None:
            return 0.0
        return score(self._by_id[question.id].entry, self.delivery.normalise(answer))

    def designer_messages(self, question: Question) -> tuple[Message, ...]:
        """What a tiny designer is shown: two words of instruction and the question."""
        return Message("system", DESIGNER_PROMPT), Message("user", question.prompt)

    def demonstrations(self, seed: int, start: int, count: int) -> Sequence[Demonstration]:
        """Demonstrations number start..start+count of the noisy teacher, for both roles, on train questions."""
        train = self._splits["train"]
        return [demonstrate(train, self._teacher, seed, number) for number in range(start, start + count)]

    def _records(self, split: str) -> list[Record]:
        if split not in self._splits:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        return self._splits[split]
