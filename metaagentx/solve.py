"""One question in; the design or the sub-tasks, every agent's turn, the answer and the verdict out.

    python -m metaagentx.solve --workdir=runs/tiny --question="Spell this word backward (example: sun -> nus): crow"

Without a question, the `--index`-th test question is asked.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from absl import app, flags

from metaagentx import command_line
from metaagentx.checkpoint import claimed
from metaagentx.evaluate import newest
from metaagentx.mesh import is_primary
from metaagentx.report.episode_text import render
from metaagentx.settings import Settings, read
from metaagentx.tasks.task import Question, Task, Verdict
from metaagentx.workbench import open_workbench

QUESTION = flags.DEFINE_string("question", "", "The question; empty: a test question.")
INDEX = flags.DEFINE_integer("index", 0, "Which test question to ask if none is given.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Another seed samples another design.", lower_bound=0)

SOLVE_STEP = 3 << 30  # random keys of its own, far from training and evaluation


def solve(settings: Settings, workdir: Path, question: str = "", *, index: int = 0, seed: int = 0) -> str:
    """The episode as text: one sample. Raises CheckpointError if nothing was trained there."""
    with open_workbench(settings) as bench:
        bench.expect(*([] if question else ["test"]))
        engines = bench.engines(newest(bench, Path(workdir)), version=0)
        if question:
            asked = bench.task.find(question) or Question("asked", "asked", question, "mathematics")
            known = asked.id != "asked"
        else:
            asked, known = bench.task.question("test", index % bench.task.size("test"), seed=-1), True
        if not known:
            bench = dataclasses.replace(bench, task=Ungraded(bench.task))
        once = bench.system.once()
        sampled = bench.sample([asked], engines, step=SOLVE_STEP, seed=seed, system=once)
    return render(once.episode(sampled, 0, step=0, phase="solve"), graded=known)


class Ungraded:
    """A task that gives no verdict: for questions of which it does not know the answer."""

    def __init__(self, task: Task) -> None:
        self._task, self.name = task, task.name

    def grading(self, question: Question, answer: str | None) -> Verdict:
        return lambda: 0.0

    def leaks(self, question: Question, text: str) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}; give the question as --question="..."')
    workdir = command_line.workdir()
    with command_line.errors_in_words():
        command_line.join()
        text = solve(read(claimed(workdir)), workdir, QUESTION.value, index=INDEX.value, seed=SEED.value)
        if is_primary():
            print(text)


if __name__ == "__main__":
    app.run(main)
