"""MetaAgent-X end to end (arXiv 2605.14212, Algorithm 1): one policy learns to design and to execute.

    python -m metaagentx.train --config=configs/tiny.py --workdir=runs/tiny

Cold start, then reinforcement: sample the trees, grade, credit, pack, update, log, save. Killed at any moment, the same
command goes on where it was and ends with the same weights, bit for bit. (With `generation.staleness` that is true of a
kill; told to stop between two checkpoints, a run saves there, and samples its next step with the newest weights.)
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

import metaagentx
from metaagentx import command_line, policies, report, sft
from metaagentx.checkpoint import Checkpoints, claim, forget
from metaagentx.evaluate import Score, compare, design_mix, save_scores, validate
from metaagentx.hosts import anywhere, insist
from metaagentx.learn.credit import Assigned, assign
from metaagentx.learn.pack import pack
from metaagentx.learn.schedule import Phase
from metaagentx.learn.schedule import phase as phase_of
from metaagentx.learn.update import Metrics
from metaagentx.mesh import is_primary
from metaagentx.metrics import JsonLines, MetricWriter, Progress
from metaagentx.pipeline import Pipeline
from metaagentx.policies import States, Weights
from metaagentx.policy.params import Params
from metaagentx.preemption import notice
from metaagentx.report.records import episode
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.sample import Rollout
from metaagentx.sections import differences, plain
from metaagentx.settings import Settings
from metaagentx.workbench import Workbench, open_workbench


def train(settings: Settings, workdir: Path) -> dict[str, Any]:
    """The whole run. Returns what `results.json` holds."""
    workdir = Path(workdir)
    claim(workdir, plain(settings), differences)
    with open_workbench(settings) as bench, notice() as stop, MetricWriter(workdir, active=is_primary()) as writer:
        bench.expect("train", "validation", *(["test"] if settings.evaluate.final else []))
        bench.memory()

        # ----- Cold start: imitate a noisy teacher in both roles
        cold = sft.cold_start(bench, workdir, writer, stop)

        # ----- Reinforcement
        trained, spent = reinforce(bench, workdir, cold, writer, stop)

        # ----- The final table, on questions that no training step has seen
        results = _about(settings) | spent
        if settings.evaluate.final:
            found, scores = compare(bench, workdir, trained)
            results |= found
        if is_primary():
            if settings.evaluate.final:
                save_scores(workdir / "scores.npz", scores)
            _write_json(workdir / "results.json", results)
            report.write(workdir)
    return results


def reinforce(
    bench: Workbench, workdir: Path, cold: Weights, writer: MetricWriter, stop: threading.Event
) -> tuple[Weights, dict[str, int]]:
    """The reinforcement learning loop, from `cold`, which it donates.

    Returns the trained weights, and the steps and tokens that it took.
    """
    settings, options = bench.settings, bench.settings.train

    # ----- State: a checkpoint if there is one, else the cold start
    states, base = policies.states(cold, settings), cold.base
    checkpoints = Checkpoints(workdir / "checkpoints", keep=options.keep)
    episodes = JsonLines(workdir / "episodes.jsonl")
    step = cursor = tokens = 0
    if checkpoints.latest() is not None:
        states, record = checkpoints.restore(forget(states))
        step, cursor, tokens = record["step"], record["cursor"], record["tokens"]
        writer.restore(record["history"])
    else:
        writer.rewind(-1)
    if is_primary():
        episodes.repair()
        episodes.keep(lambda line: line["step"] <= step)

    def save() -> None:
        record = {"step": step, "cursor": cursor, "tokens": tokens, "seed": settings.seed, "history": writer.history()}
        if states:  # none where servers answer for every role
            checkpoints.save(step, states, record)

    underway: deque[tuple[Step, int]] = deque()  # steps whose update is not waited for yet, and the tokens up to them

    def settle(most: int, score: Score | None = None) -> None:
        """Wait for updates until `most` are under way, and log them. `score` is that of the last."""
        while len(underway) > most:
            done, spent = underway.popleft()
            found = done.metrics(options.gap_bound) | {"train/tokens": float(spent)}
            last = score if not underway else None
            writer.write(done.number, found if last is None else found | last.metrics(), phase=done.phase.name)
            progress.update(
                done.number,
                phase=done.phase.name,
                accuracy=None if last is None else last.accuracy,
                tokens_per_second=found["rollout/tokens_per_second"],
                share=max(spent / options.token_budget, done.number / options.steps) if options.token_budget else None,
            )

    with Progress(options.steps, start=step, active=is_primary()) as progress:
        # ----- Compile every program, and measure the cold start
        progress.update(step, phase="compiling")
        pipeline = Pipeline(settings.generation.staleness, bench.way).after(step, policies.acting(states, base))
        engines = bench.engines(*pipeline.newest)
        memory = bench.prepare(engines, states, base)
        if step == 0:
            score = validate(bench, engines, 0)
            writer.write(0, score.metrics() | memory, phase="start")
            progress.update(0, phase="start", accuracy=score.accuracy)

        while step < options.steps and not 0 < options.token_budget <= tokens:
            # ----- Sample, grade, credit, pack, update
            phase = phase_of(settings.stages, settings.learners, step)
            states, pipeline, done = one_step(bench, engines, states, base, pipeline, phase, step, cursor)
            step, cursor = step + 1, cursor + options.questions
            tokens += int(done.rollout.metrics["rollout/generated_tokens"])
            underway.append((done, tokens))
            ended = step == options.steps or 0 < options.token_budget <= tokens
            if (step == 1 or step % options.episodes_every == 0) and is_primary():
                _record_episode(episodes, done)

            # ----- Log
            stopping = anywhere(stop.is_set())
            saving = step % options.checkpoint_every == 0 or stopping
            if step % options.evaluate_every == 0 or ended:
                bench.load(engines, *pipeline.newest)
                settle(0, validate(bench, engines, step))
            settle(0 if saving else pipeline.staleness)

            # ----- Save; a run that goes on from here has these weights alone
            if saving:
                save()
                pipeline = pipeline.drained()
            if stopping:
                raise command_line.Preempted(f"preempted after step {step}: saved; run the same command again")

    save()
    checkpoints.close()
    return policies.acting(states, base), {"train_steps": step, "train_tokens": tokens}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of training, whose update may still be under way."""

    number: int  # steps with it
    phase: Phase
    rollout: Rollout
    assigned: Assigned
    known: dict[str, float]  # metrics of all but the update
    measured: Metrics  # of the update, on the devices

    def metrics(self, gap_bound: float) -> dict[str, float]:
        """All metrics, as soon as the update is computed.

        Where older weights sampled, the gap between sampler and trainer is called a drift: it is no fault.

        Raises:
          RuntimeError: sampler and trainer disagree about tokens of the same weights.
        """
        clock = Clock()
        found = {f"train/{name}": float(value) for name, value in jax.device_get(self.measured).items()}
        clock.lap("update")
        known = self.known | {name: self.known[name] + seconds for name, seconds in clock.laps().items()}
        if known["train/staleness_max"]:
            drifts = {name.replace("/gap_", "/drift_"): value for name, value in found.items()}
            return known | {name: value for name, value in drifts.items() if not name.endswith("_exceeded")}
        for role in self.phase.trains:
            if found.get(f"train/{role}/gap_exceeded"):
                raise RuntimeError(
                    f"step {self.number - 1}: sampler and trainer disagree on the {role}'s log-probabilities by "
                    f"{found[f'train/{role}/gap_mean']:.4f} on average, above train.gap_bound ({gap_bound})"
                )
        return known | found


def one_step(
    bench: Workbench,
    engines: Mapping[str, Engine | Remote],
    states: States,
    base: Params | None,
    pipeline: Pipeline,
    phase: Phase,
    step: int,
    cursor: int,
) -> tuple[States, Pipeline, Step]:
    """One step of training: a function of the states, the pipeline, the step and the cursor alone.

    `states` are donated. What is returned of them, in `pipeline` and in `Step.measured` may still be computed.
    """
    settings, roles, clock = bench.settings, bench.settings.roles, Clock()

    # ----- Sample the trees, and grade their executions
    numbers = range(cursor, cursor + settings.train.questions)
    questions = [bench.task.question("train", number, seed=settings.seed) for number in numbers]
    bench.load(engines, *pipeline.oldest)
    rollout = bench.sample(questions, engines, step=step)
    insist(f"rollout of step {step}", rollout.digest(), "their code or data differ")
    clock.lap("rollout")

    # ----- Credit: one advantage a trajectory
    with bench.sampling():  # where nothing else is computed now
        assigned = assign(rollout.trees, settings.credit)
    clock.lap("credit")

    # ----- Pack the rows of the roles that train now
    batches = {}
    for role, scale in phase.trains.items():
        if scale > 0:
            keep_zero = bool(roles[role].entropy or roles[role].kl)
            batches[role] = pack(*assigned.of(role), settings.pack, settings.loss, keep_zero=keep_zero)
    clock.lap("pack")

    # ----- Update, and the new weights go to where sampling happens
    states, measured = policies.train_step(states, base, batches, phase, settings, bench.compute)
    pipeline = pipeline.after(step + 1, policies.acting(states, base))
    clock.lap("update")

    ages = [step - trajectory.version for role in batches for trajectory in assigned.of(role)[0]] or [0]
    known = rollout.metrics | design_mix(rollout.trees) | clock.laps()
    known |= {f"credit/{name}": value for name, value in assigned.metrics.items()}
    known |= {"train/staleness_mean": sum(ages) / len(ages), "train/staleness_max": float(max(ages))}
    return states, pipeline, Step(step + 1, phase, rollout, assigned, known, measured)


class Clock:
    """Seconds of each part of a step."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[f"time/{name}"], self._last = now - self._last, now

    def laps(self) -> dict[str, float]:
        return self._laps


def _record_episode(episodes: JsonLines, done: Step) -> None:
    """One tree of this step for people to read, with the advantages that were trained on."""
    rollout, assigned = done.rollout, done.assigned
    index = done.number % len(rollout.trees)
    advantage = {
        (t.design, t.execution): float(a)
        for t, a in zip(assigned.trajectories, assigned.advantages, strict=True)
        if t.question == index
    }
    tree = rollout.trees[index]
    episodes.append(
        episode(
            tree,
            step=done.number,
            phase=done.phase.name,
            design_advantages=[advantage.get((d, -1), 0.0) for d in range(len(tree.designs))],
            execution_advantages=[
                [advantage.get((d, e), 0.0) for e in range(len(design.executions))]
                for d, design in enumerate(tree.designs)
            ],
        )
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


def _write_json(path: Path, value: Any) -> None:
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(value, indent=1) + "\n")
    draft.replace(path)


def main(settings: Settings, workdir: Path) -> None:
    results = train(settings, workdir)
    if is_primary():
        report.show(results)
        print(f"report: {workdir / 'report.html'}")


if __name__ == "__main__":
    command_line.run(main)
