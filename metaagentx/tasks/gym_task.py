"""The tiny task: sums, products, divisors and words from reasoning-gym, as a `task.Task`."""

from __future__ import annotations

from pathlib import Path

from metaagentx.tasks.answers import BoxedDelivery
from metaagentx.tasks.dataset import load, prepare
from metaagentx.tasks.gym import DOMAINS, GymOptions, Record, score
from metaagentx.tasks.palette import DESIGNER_PROMPT
from metaagentx.tasks.record_task import RecordTask
from metaagentx.tasks.task import Verdict
from metaagentx.tasks.teacher import TeacherOptions, demonstrate


def tiny_task(options: GymOptions, data_dir: str | Path, teacher: TeacherOptions) -> RecordTask:
    """Questions of `options`, prepared under `data_dir` on first use, with a noisy teacher."""
    splits = load(prepare(options, data_dir))
    return RecordTask(
        "gym",
        splits,
        deliveries=dict.fromkeys(DOMAINS, BoxedDelivery(instruction="")),
        grade=verify,
        designer_prompt=lambda question: DESIGNER_PROMPT,
        teach=lambda seed, number: demonstrate(splits["train"], teacher, seed, number),
    )


def verify(record: Record, answer: str) -> Verdict:
    """reasoning-gym's verdict, at once."""
    verdict = score(record.entry, answer)
    return lambda: verdict
