"""The cold start: supervised fine-tuning of the one policy on demonstrations of both roles.

    python -m metaagentx.sft --config=configs/tiny.py --workdir=runs/tiny

`metaagentx.train` does this first by itself. The task's teacher writes the demonstrations, its verifier has checked
them, and loss falls on the assistant's tokens only.
"""

from __future__ import annotations

import threading
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx import command_line
from metaagentx.checkpoint import CheckpointError, Checkpoints, claim
from metaagentx.learn.supervised import begin, imitate, pack_demonstrations
from metaagentx.learn.update import Metrics
from metaagentx.mesh import is_primary
from metaagentx.metrics import COLD_START, MetricWriter, Progress
from metaagentx.policy.params import Params
from metaagentx.preemption import notice
from metaagentx.rollout.conversation import as_mappings
from metaagentx.settings import Settings, differences, plain
from metaagentx.tasks.order import position
from metaagentx.workbench import Workbench, open_workbench


def cold_start(bench: Workbench, workdir: Path, writer: MetricWriter, stop: threading.Event) -> Params:
    """The weights after the cold start: made, or read if they are there. Resumes where it was stopped."""
    settings, options = bench.settings, bench.settings.cold_start
    if options.weights_from:
        return finished(bench, workdir)

    # ----- State: a checkpoint if there is one
    state = begin(bench.fresh_params(), options.optimizer, master=True)
    checkpoints = Checkpoints(workdir / "cold_start", keep=1)
    if checkpoints.latest() is not None:
        state, record = checkpoints.restore(state)
        if record["step"] == options.steps:
            checkpoints.close()
            return state.params
        writer.restore(record["history"])
    else:
        writer.restore([])
    start = int(state.step)

    # ----- Demonstrations, as token ids
    lessons = _lessons(bench)

    # ----- Imitate
    with Progress(options.steps, start=start, active=is_primary()) as progress:
        progress.update(start, phase=COLD_START)
        metrics: Metrics = {}
        for step in range(start, options.steps):
            places = range(step * options.batch, (step + 1) * options.batch)
            chosen = [lessons[position(settings.seed, place, len(lessons))] for place in places]
            batch = pack_demonstrations(chosen, settings.pack)
            jax.block_until_ready(metrics)  # of the step before: no more than one is under way
            state, metrics = imitate(state, batch, options.optimizer, bench.compute)

            done = step + 1
            if done % options.log_every == 0 or done == options.steps:
                found = {f"cold_start/{name}": float(value) for name, value in jax.device_get(metrics).items()}
                writer.write(done, found, phase=COLD_START)
            progress.update(done, phase=COLD_START)
            if done % options.checkpoint_every == 0 or done == options.steps or stop.is_set():
                checkpoints.save(done, state, {"step": done, "seed": settings.seed, "history": writer.history()})
            if stop.is_set():
                raise command_line.Preempted(f"preempted in the cold start, after step {done}: saved; run it again")
    checkpoints.close()
    return state.params


def finished(bench: Workbench, workdir: Path) -> Params:
    """The weights of the cold start of the run in `workdir`. Raises CheckpointError if it is not finished."""
    options = bench.settings.cold_start
    workdir = Path(options.weights_from or workdir)
    state = begin(bench.fresh_params(), options.optimizer, master=True)
    state, record = Checkpoints(workdir / "cold_start", keep=1).restore(state)
    if record["step"] != options.steps:
        raise CheckpointError(
            f"the cold start in {workdir} stands at step {record['step']} of {options.steps}: finish it first"
        )
    return state.params


def _lessons(bench: Workbench) -> list[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Every demonstration as (token ids, loss mask)."""
    count = bench.settings.cold_start.demonstrations
    lessons = []
    for lesson in bench.task.demonstrations(bench.settings.seed, 0, count):
        ids, mask = bench.chat.conversation(as_mappings(lesson.messages))
        lessons.append((np.asarray(ids, np.int32), np.asarray(mask, np.bool_)))
    return lessons


def main(settings: Settings, workdir: Path) -> None:
    claim(workdir, plain(settings), differences)
    with open_workbench(settings) as bench, notice() as stop, MetricWriter(workdir, active=is_primary()) as writer:
        cold_start(bench, workdir, writer, stop)


if __name__ == "__main__":
    command_line.run(main)
