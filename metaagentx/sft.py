"""The cold start: supervised fine-tuning on demonstrations of every role.

    python -m metaagentx.sft --config=configs/tiny.py --workdir=runs/tiny

`metaagentx.train` does this first by itself. The task's teacher writes the demonstrations, its verifier has checked
them, and loss falls on the assistant's tokens only. One set of weights learns all roles, or the adapter of each role
its own (`cold_start.into`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from metaagentx import command_line, memory, policies
from metaagentx.checkpoint import CheckpointError, Checkpoints, claim, forget
from metaagentx.hosts import anywhere
from metaagentx.learn.pack import buckets
from metaagentx.learn.supervised import begin, call, imitate, pack_demonstrations
from metaagentx.learn.update import Compute, Metrics
from metaagentx.mesh import is_primary
from metaagentx.metrics import COLD_START, MetricWriter, Progress
from metaagentx.policies import BASE, States, Weights
from metaagentx.policy import params
from metaagentx.policy.params import Params
from metaagentx.preemption import notice
from metaagentx.rollout.compilation import Call, compile_all
from metaagentx.rollout.conversation import as_mappings
from metaagentx.sections import SettingsError, differences, plain
from metaagentx.settings import Settings
from metaagentx.tasks.order import position
from metaagentx.workbench import Workbench, open_workbench

WEIGHTS = "weights"  # the one state of a cold start that trains full weights, on every role

Lesson = tuple[NDArray[np.int32], NDArray[np.bool_]]  # token ids, and which of them the assistant says


def cold_start(bench: Workbench, workdir: Path, writer: MetricWriter, stop: threading.Event) -> Weights:
    """The weights after the cold start: made, or read if they are there. Resumes where it was stopped."""
    settings, options = bench.settings, bench.settings.cold_start
    checkpoints = Checkpoints(workdir / "cold_start", keep=1)
    if options.weights_from or not options.steps or checkpoints.latest() == options.steps:
        return finished(bench, workdir)

    # ----- What devices will hold, and demonstrations as token ids
    plan = memory.cold_start(settings, bench.model, bench.roles, bench.mesh).check()
    lessons = _lessons(bench)

    # ----- State: a checkpoint if there is one
    states, base = _begin(bench)
    start = 0
    if checkpoints.latest() is not None:
        states, record = checkpoints.restore(forget(states))
        start = record["step"]
        writer.restore(record["history"])
    else:
        writer.restore([])

    # ----- Compile every program
    plan = memory.measured(plan, update=compile_all(_programs(bench, states, base)))
    logging.info("%s", plan.check())

    # ----- Imitate
    with Progress(options.steps, start=start, active=is_primary()) as progress:
        progress.update(start, phase=COLD_START)
        metrics: Metrics = {}
        for step in range(start, options.steps):
            places = range(step * options.batch, (step + 1) * options.batch)
            chosen = [lessons[position(settings.seed, place, len(lessons))] for place in places]
            jax.block_until_ready(metrics)  # of the step before: no more than one is under way
            states, metrics = _imitate(bench, states, base, chosen)

            done = step + 1
            if done % options.log_every == 0 or done == options.steps:
                found = {f"cold_start/{name}": float(value) for name, value in jax.device_get(metrics).items()}
                writer.write(done, found, phase=COLD_START)
            progress.update(done, phase=COLD_START)
            stopping = anywhere(stop.is_set())
            if done % options.checkpoint_every == 0 or done == options.steps or stopping:
                checkpoints.save(done, states, {"step": done, "seed": settings.seed, "history": writer.history()})
            if stopping:
                raise command_line.Preempted(f"preempted in the cold start, after step {done}: saved; run it again")
    checkpoints.close()
    return _acting(bench, states, base)


def finished(bench: Workbench, workdir: Path, base: Params | None = None) -> Weights:
    """The weights of the cold start of the run in `workdir`. Raises CheckpointError if it is not finished.

    `base`: those under the run's adapters, where they are at hand: they are not made or read again.
    """
    options = bench.settings.cold_start
    if not options.steps:
        return bench.fresh_weights() if base is None else bench.around(base)
    checkpoints = Checkpoints(Path(options.weights_from or workdir) / "cold_start", keep=1)
    reached = checkpoints.latest()
    if reached != options.steps:
        found = "holds no checkpoint" if reached is None else f"stands at step {reached} of {options.steps}"
        raise CheckpointError(f"the cold start in {checkpoints.directory} {found}: finish it first")
    if options.into == "adapters":
        adapters = checkpoints.restore_params(bench.shapes.adapters)
        return Weights({BASE: bench.first_params() if base is None else base}, adapters)
    if base is None:
        base = checkpoints.restore_params({WEIGHTS: params.abstract(bench.model, bench.mesh)})[WEIGHTS]
    return bench.around(base)


def _begin(bench: Workbench) -> tuple[States, Params | None]:
    """What the cold start trains, and the frozen weights below it: full weights once, or the adapter of each role."""
    options, master = bench.settings.cold_start, bench.settings.policies.master
    first, base = bench.first_params(), None
    trained = {WEIGHTS: first}
    if options.into == "adapters":
        trained, base = bench.around(first).adapters, first
    return {name: begin(weights, options.optimizer, master) for name, weights in trained.items()}, base


def _acting(bench: Workbench, states: States, base: Params | None) -> Weights:
    """The weights with which reinforcement starts; `base` is that of adapters, if they were trained."""
    if base is not None:
        return policies.acting(states, base)
    return bench.around(states[WEIGHTS].params)


def _programs(bench: Workbench, states: States, base: Params | None) -> Iterator[Call]:
    """Those of all steps, largest first: demonstrations fill at most a row each, perhaps beyond `pack.row_buckets`."""
    settings = bench.settings
    for rows in buckets(settings.cold_start.batch, settings.pack):
        blank = pack_demonstrations((), replace(settings.pack, row_buckets=(rows,)))
        for state in states.values():
            yield call(state, blank, settings.cold_start.optimizer, _compute(bench, base), base)


def _compute(bench: Workbench, base: Params | None) -> Compute:
    return replace(bench.compute, lora=None if base is None else bench.lora)


def _imitate(
    bench: Workbench, states: States, base: Params | None, chosen: Sequence[tuple[str, Lesson]]
) -> tuple[States, Metrics]:
    """One step of every state on the demonstrations of its roles; `states` are donated."""
    settings, stepped = bench.settings, dict(states)
    metrics: Metrics = {}
    for name, state in states.items():
        lessons = [lesson for role, lesson in chosen if name in (WEIGHTS, role)]
        batch = pack_demonstrations(lessons, settings.pack)
        stepped[name], found = imitate(state, batch, settings.cold_start.optimizer, _compute(bench, base), base)
        metrics |= found if name == WEIGHTS else {f"{name}/{key}": value for key, value in found.items()}
    return stepped, metrics


def _lessons(bench: Workbench) -> list[tuple[str, Lesson]]:
    """Every demonstration's role and token ids. Raises SettingsError if there are none, or one is too long."""
    settings, options = bench.settings, bench.settings.cold_start
    row, context = settings.pack.row_length, bench.model.max_length
    lessons: list[tuple[str, Lesson]] = []
    try:
        demonstrations = bench.task.demonstrations(settings.seed, 0, options.demonstrations)
    except ValueError as error:
        raise SettingsError(f"the cold start has nothing to imitate: {error}") from error
    for lesson in demonstrations:
        ids, mask = bench.chat.conversation(as_mappings(lesson.messages))
        if len(ids) > min(row, context):
            begins = lesson.messages[-1].content[:60]
            raise SettingsError(
                f"the {lesson.role}'s demonstration that ends with {begins!r}... has {len(ids)} tokens, more than "
                f"config.pack.row_length ({row}) or the model's context ({context}): raise them, or leave it out"
            )
        lessons.append((lesson.role, (np.asarray(ids, np.int32), np.asarray(mask, np.bool_))))
    taught = {role for role, _ in lessons}
    if taught.isdisjoint(settings.role_names):
        raise SettingsError(
            f"the cold start has nothing to imitate: its demonstrations are of {', '.join(sorted(taught))}, "
            f"this run has {', '.join(settings.role_names)}"
        )
    return lessons


def main(settings: Settings, workdir: Path) -> None:
    with (
        claim(workdir, plain(settings), differences),
        open_workbench(settings) as bench,
        notice() as stop,
        MetricWriter(workdir, active=is_primary()) as writer,
    ):
        cold_start(bench, workdir, writer, stop)


if __name__ == "__main__":
    command_line.run(main)
