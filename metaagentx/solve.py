"""One question in; the design, every agent's turn, the answer and the verdict out.

    python -m metaagentx.solve --workdir=runs/tiny --question="Spell this word backward (example: sun -> nus): crow"

Without a question, the `--index`-th test question is asked.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from absl import app, flags, logging

from metaagentx.checkpoint import CheckpointError
from metaagentx.command_line import WORKDIR
from metaagentx.evaluate import newest
from metaagentx.report.episode_text import render
from metaagentx.report.records import episode
from metaagentx.settings import Settings, SettingsError, read
from metaagentx.tasks.task import Question
from metaagentx.workbench import open_workbench

QUESTION = flags.DEFINE_string("question", "", "The question; empty: a test question.")
INDEX = flags.DEFINE_integer("index", 0, "Which test question to ask if none is given.", lower_bound=0)
SEED = flags.DEFINE_integer("seed", 0, "Another seed samples another design.", lower_bound=0)

SOLVE_STEP = 3 << 30  # random keys of its own, far from training and evaluation


def solve(settings: Settings, workdir: Path, question: str = "", *, index: int = 0, seed: int = 0) -> str:
    """The episode as text: one design sampled, run once. Raises CheckpointError if nothing was trained there."""
    with open_workbench(settings) as bench:
        params = newest(bench, Path(workdir))
        if question:
            asked = bench.task.find(question) or Question("asked", "asked", question, "mathematics")
        else:
            asked = bench.task.question("test", index % bench.task.size("test"), seed=-1)
        engine = bench.engine()
        engine.load(params, version=0)
        both = {"designer": engine, "executor": engine}
        tree = dataclasses.replace(settings.tree, designs=1, executions=1)
        rollout = bench.sample([asked], both, step=SOLVE_STEP, seed=seed, tree=tree)
    return render(episode(rollout.trees[0], step=0, phase="solve"), graded=asked.id != "asked")


def settings_of(workdir: Path) -> Settings:
    """The settings that a work directory was trained with. Raises CheckpointError if it is none."""
    path = workdir / "config.json"
    if not path.exists():
        raise CheckpointError(f"{workdir} is no work directory of a run (it has no config.json): train there first")
    return read(json.loads(path.read_text()))


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f'unknown argument {arguments[1]!r}; give the question as --question="..."')
    if not WORKDIR.value:
        raise app.UsageError("--workdir=DIRECTORY is needed: the work directory of a training run")
    logging.set_verbosity(logging.WARNING)
    workdir = Path(WORKDIR.value).expanduser().resolve()
    try:
        print(solve(settings_of(workdir), workdir, QUESTION.value, index=INDEX.value, seed=SEED.value))
    except (SettingsError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
