"""The compositional task of a tiny team: its questions, and what it knows of the sub-tasks that they are split into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metaagentx.tasks.answers import BoxedDelivery, normalise
from metaagentx.tasks.compound import CompoundOptions, compose, judge
from metaagentx.tasks.dataset import load, prepare
from metaagentx.tasks.gym import DOMAINS, SPLITS, Record, digest, score
from metaagentx.tasks.record_task import RecordTask, asked
from metaagentx.tasks.task import Demonstration, Question, Verdict
from metaagentx.tasks.teacher import TeacherOptions
from metaagentx.tasks.team_teacher import MAIN_PROMPT, TeamLessons, demonstrate_team, sums_apart
from metaagentx.tools.calculator import calculate
from metaagentx.tools.tool import ToolError

STEP = "step"  # the kind of a sub-task that is plain arithmetic


class CompoundTask(RecordTask):
    """Questions of several parts. It grades answers to a part, and to a calculation, as well as to a question."""

    def __init__(
        self, options: CompoundOptions, data_dir: str | Path, lessons: TeamLessons, teacher: TeacherOptions
    ) -> None:
        pools = load(prepare(options.pools, data_dir))
        splits, parts = compose(options, pools), sums_apart(pools["train"])

        def teach(seed: int, number: int) -> Demonstration:
            return demonstrate_team(splits["train"], parts, lessons, teacher, seed, number)

        super().__init__(
            "compound",
            splits,
            deliveries=dict.fromkeys(DOMAINS, BoxedDelivery(instruction="")),
            grade=verify,
            designer_prompt=lambda question: MAIN_PROMPT,
            teach=teach,
        )
        self._parts = _by_text([part for split in SPLITS for part in pools[split]])

    def find(self, prompt: str) -> Question | None:
        """The question that reads `prompt`, or the part of one, or the calculation that it is."""
        found = super().find(prompt)
        if found is not None:
            return found
        part = self._parts.get(digest(prompt))
        if part is not None:
            return asked(part)
        return None if _value(prompt) is None else Question(STEP, STEP, prompt, "mathematics")

    def grading(self, question: Question, answer: str | None) -> Verdict:
        """See `RecordTask.grading`; of parts and of calculations too."""
        part = self._parts.get(digest(question.prompt))
        if question.kind == STEP or part is not None:
            grade = 0.0 if answer is None else _grade_sub_task(question, part, answer)
            return lambda: grade
        return super().grading(question, answer)


def verify(record: Record, answer: str) -> Verdict:
    """Every part's own verifier, at once."""
    verdict = judge(record, answer)
    return lambda: verdict


def _grade_sub_task(question: Question, part: Record | None, answer: str) -> float:
    answer = normalise(answer)
    return score(part.entry, answer) if part is not None else float(answer == normalise(_value(question.prompt) or ""))


def _value(expression: str) -> str | None:
    """The value of a calculation; None where it is none, or is a number by itself."""
    try:
        value = calculate(expression)
    except ToolError:
        return None
    return None if normalise(expression) == value else value


def _by_text(records: Sequence[Record]) -> dict[bytes, Record]:
    return {digest(record.question): record for record in records}
