"""MetaAgent-X end to end (arXiv 2605.14212, Algorithm 1): one policy learns to design and to execute.

    python -m metaagentx.train --config=configs/tiny.py --workdir=runs/tiny

Or M-GRPO (arXiv 2511.13288), where the config has a team. Cold start, then reinforcement: sample, grade, credit, pack,
update, log, save. Killed at any moment, the same command goes on where it was and ends with the same weights, bit for
bit. (Where tools run beside decoding, it samples the same but for rounding: see docs/architecture.md. With
`generation.staleness` that is true of a kill; told to stop between two checkpoints, a run saves there, and samples its
next step with the newest weights.)
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

import metaagentx
from metaagentx import command_line, policies, report, sft
from metaagentx.checkpoint import Checkpoints, claim, forget
from metaagentx.evaluate import compare, save, validate
from metaagentx.hosts import anywhere
from metaagentx.mesh import is_primary
from metaagentx.metrics import JsonLines, MetricWriter, Progress
from metaagentx.pipeline import Pipeline
from metaagentx.policies import States, Weights
from metaagentx.preemption import notice
from metaagentx.score import Score
from metaagentx.sections import differences, plain
from metaagentx.settings import Settings
from metaagentx.step import Place, Step, one_step
from metaagentx.workbench import Workbench, open_workbench


def train(settings: Settings, workdir: Path) -> dict[str, Any]:
    """The whole run. Returns what `results.json` holds."""
    workdir = Path(workdir)
    with (
        claim(workdir, plain(settings), differences),
        open_workbench(settings) as bench,
        notice() as stop,
        MetricWriter(workdir, active=is_primary()) as writer,
    ):
        bench.expect("train", "validation", *(["test"] if settings.evaluate.final else []))
        bench.memory()
        if settings.evaluate.final:
            bench.table_memory()

        # ----- Cold start: imitate a noisy teacher in both roles
        cold = sft.cold_start(bench, workdir, writer, stop)

        # ----- Reinforcement
        trained, spent = reinforce(bench, workdir, cold, writer, stop)

        # ----- The final table, on questions that no training step has seen
        found, scores = compare(bench, workdir, trained, stop) if settings.evaluate.final else ({}, {})
        results = _about(settings) | spent | found
        if is_primary():
            save(workdir, results, scores)
    return results


def reinforce(
    bench: Workbench, workdir: Path, cold: Weights, writer: MetricWriter, stop: threading.Event
) -> tuple[Weights, dict[str, int]]:
    """The reinforcement learning loop, from `cold`, which it donates.

    Returns the trained weights, and the steps and tokens that it took.
    """
    options, base = bench.settings.train, cold.base
    checkpoints = Checkpoints(workdir / "checkpoints", keep=options.keep)
    states, place = _resume(bench, cold, checkpoints, writer)

    with Progress(options.steps, start=place.step, active=is_primary()) as progress:
        log = Log(bench, writer, progress, JsonLines(workdir / "episodes.jsonl"))
        log.begin(place)

        # ----- Compile every program, and measure the cold start
        pipeline = Pipeline(bench.settings.generation.staleness, bench.way)
        pipeline = pipeline.after(place.step, policies.acting(states, base))
        engines = bench.engines(*pipeline.newest)
        memory = bench.prepare(engines, states, base)
        if place.step == 0:
            log.start(validate(bench, engines, 0), memory)

        while not _ended(place, bench.settings):
            # ----- Sample, grade, credit, pack, update
            states, pipeline, done = one_step(bench, engines, states, base, pipeline, place)
            place = done.place

            # ----- Log
            log.add(done)
            stopping = anywhere(stop.is_set())
            saving = place.step % options.checkpoint_every == 0 or stopping
            if place.step % options.evaluate_every == 0 or _ended(place, bench.settings):
                bench.load(engines, *pipeline.newest)
                log.settle(0, validate(bench, engines, place.step))
            log.settle(0 if saving else pipeline.staleness)

            # ----- Save; a run that goes on from here has these weights alone
            if saving:
                _save(bench, checkpoints, states, place, writer)
                pipeline = pipeline.drained()
            if stopping:
                raise command_line.Preempted(f"preempted after step {place.step}: saved; run the same command again")

    _save(bench, checkpoints, states, place, writer)
    checkpoints.close()
    return policies.acting(states, base), {"train_steps": place.step, "train_tokens": place.tokens}


def _ended(place: Place, settings: Settings) -> bool:
    return place.step >= settings.train.steps or 0 < settings.train.token_budget <= place.tokens


def _resume(bench: Workbench, cold: Weights, checkpoints: Checkpoints, writer: MetricWriter) -> tuple[States, Place]:
    """The states of the newest checkpoint and where it stands; without one, those of the cold start."""
    states = policies.states(cold, bench.settings)
    if checkpoints.latest() is None:
        writer.rewind(-1)
        return states, Place()
    states, record = checkpoints.restore(forget(states))
    writer.restore(record["history"])
    return states, Place(**record["place"])


def _save(bench: Workbench, checkpoints: Checkpoints, states: States, place: Place, writer: MetricWriter) -> None:
    record = {"place": dataclasses.asdict(place), "seed": bench.settings.seed, "history": writer.history()}
    if states:  # none where servers answer for every role
        checkpoints.save(place.step, states, record)


@dataclass(slots=True)
class Log:
    """What a run tells of its steps, as their updates end."""

    bench: Workbench
    writer: MetricWriter
    progress: Progress
    episodes: JsonLines
    underway: deque[Step] = field(default_factory=deque)  # steps whose update is not waited for yet

    def begin(self, place: Place) -> None:
        """Forget episodes of later steps, which will be made again."""
        if is_primary():
            self.episodes.repair()
            self.episodes.keep(lambda line: line["step"] <= place.step)
        self.progress.update(place.step, phase="compiling")

    def start(self, score: Score, memory: dict[str, float]) -> None:
        """The cold start."""
        self.writer.write(0, score.metrics() | memory, phase="start")
        self.progress.update(0, phase="start", accuracy=score.accuracy)

    def add(self, done: Step) -> None:
        """A step more; now and then one of its questions is kept for people to read."""
        self.underway.append(done)
        step, options = done.place.step, self.bench.settings.train
        if (step == 1 or step % options.episodes_every == 0) and is_primary():
            system, number = self.bench.system, step % options.questions
            self.episodes.append(system.episode(done.sampled, number, done.credited, step=step, phase=done.phase.name))

    def settle(self, most: int, score: Score | None = None) -> None:
        """Wait for updates until `most` are under way, and write of them. `score` is that of the last."""
        options, budget = self.bench.settings.train, self.bench.settings.train.token_budget
        while len(self.underway) > most:
            done = self.underway.popleft()
            place, last = done.place, score if not self.underway else None
            found = done.metrics(options.gap_bound) | {"train/tokens": float(place.tokens)}
            self.writer.write(place.step, found if last is None else found | last.metrics(), phase=done.phase.name)
            self.progress.update(
                place.step,
                phase=done.phase.name,
                accuracy=None if last is None else last.accuracy,
                tokens_per_second=found["rollout/tokens_per_second"],
                share=max(place.tokens / budget, place.step / options.steps) if budget else None,
            )


def _about(settings: Settings) -> dict[str, Any]:
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "reasoning-gym")
    versions = {"python": platform.python_version(), "metaagentx": metaagentx.__version__}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    device = jax.devices()[0]
    return {
        "config": plain(settings),
        "seed": settings.seed,
        "device": f"{jax.device_count()} x {device.device_kind}",
        "versions": versions,
    }


def main(settings: Settings, workdir: Path) -> None:
    results = train(settings, workdir)
    if is_primary():
        report.show(results)
        print(f"report: {workdir / 'report.html'}")


if __name__ == "__main__":
    command_line.run(main)
