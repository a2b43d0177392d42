"""MetaAgent-X end to end (arXiv 2605.14212, Algorithm 1): one policy learns to design and to execute.

    python -m metaagentx.train --config=configs/tiny.py --workdir=runs/tiny

Cold start, then reinforcement: sample the trees, grade, credit, pack, update, log, save. Killed at any moment, the same
command goes on where it was and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import metaagentx
from metaagentx import command_line, policies, report, sft
from metaagentx.checkpoint import Checkpoints, claim, forget
from metaagentx.evaluate import compare, design_mix, save_scores, validate
from metaagentx.hosts import anywhere, insist
from metaagentx.learn.credit import Assigned, assign
from metaagentx.learn.pack import pack
from metaagentx.learn.schedule import Phase
from metaagentx.learn.schedule import phase as phase_of
from metaagentx.mesh import is_primary
from metaagentx.metrics import JsonLines, MetricWriter, Progress
from metaagentx.policies import States, Weights
from metaagentx.policy.params import Params
from metaagentx.preemption import notice
from metaagentx.report.records import episode
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.sample import Rollout
from metaagentx.settings import Settings, differences, plain
from metaagentx.workbench import Workbench, distinct, open_workbench


def train(settings: Settings, workdir: Path) -> dict[str, Any]:
    """The whole run. Returns what `results.json` holds."""
    workdir = Path(workdir)
    claim(workdir, plain(settings), differences)
    with open_workbench(settings) as bench, notice() as stop, MetricWriter(workdir, active=is_primary()) as writer:
        bench.expect("train", "validation", *(["test"] if settings.evaluate.final else []))

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
        if states:  # none where servers answer for both roles
            checkpoints.save(step, states, record)

    with Progress(options.steps, start=step, active=is_primary()) as progress:
        # ----- Compile every program of the engine, and measure the cold start
        progress.update(step, phase="compiling")
        engines = bench.engines(policies.acting(states, base), version=step)
        for engine in distinct(engines):
            engine.warmup()
        if step == 0:
            score = validate(bench, engines, 0)
            writer.write(0, score.metrics(), phase="start")
            progress.update(0, phase="start", accuracy=score.accuracy)

        while step < options.steps and not 0 < options.token_budget <= tokens:
            # ----- Sample, grade, credit, pack, update
            phase = phase_of(settings.stages, step)
            states, rollout, assigned, found = one_step(bench, engines, states, base, phase, step, cursor)
            step, cursor = step + 1, cursor + options.questions
            tokens += int(rollout.metrics["rollout/generated_tokens"])
            ended = step == options.steps or 0 < options.token_budget <= tokens
            if (step == 1 or step % options.episodes_every == 0) and is_primary():
                _record_episode(episodes, rollout, assigned, step, phase.name)

            # ----- Log
            found["train/tokens"], accuracy = float(tokens), None
            if step % options.evaluate_every == 0 or ended:
                policies.load(engines, policies.acting(states, base), version=step)
                score = validate(bench, engines, step)
                found |= score.metrics()
                accuracy = score.accuracy
            writer.write(step, found, phase=phase.name)
            rate = rollout.metrics["rollout/tokens_per_second"]
            share = max(tokens / options.token_budget, step / options.steps) if options.token_budget else None
            progress.update(step, phase=phase.name, accuracy=accuracy, tokens_per_second=rate, share=share)

            # ----- Save
            stopping = anywhere(stop.is_set())
            if step % options.checkpoint_every == 0 or stopping:
                save()
            if stopping:
                raise command_line.Preempted(f"preempted after step {step}: saved; run the same command again")

    save()
    checkpoints.close()
    return policies.acting(states, base), {"train_steps": step, "train_tokens": tokens}


def one_step(
    bench: Workbench,
    engines: Mapping[str, Engine | Remote],
    states: States,
    base: Params | None,
    phase: Phase,
    step: int,
    cursor: int,
) -> tuple[States, Rollout, Assigned, dict[str, float]]:
    """One step of training: a function of the states, the step and the cursor alone. `states` are donated."""
    settings, roles, clock = bench.settings, bench.settings.roles.by_role(), Clock()

    # ----- Sample the trees, and grade their executions
    numbers = range(cursor, cursor + settings.train.questions)
    questions = [bench.task.question("train", number, seed=settings.seed) for number in numbers]
    policies.load(engines, policies.acting(states, base), version=step)
    rollout = bench.sample(questions, engines, step=step)
    insist(f"rollout of step {step}", rollout.digest(), "their code or data differ")
    clock.lap("rollout")

    # ----- Credit: one advantage a trajectory
    assigned = assign(rollout.trees, settings.credit)
    clock.lap("credit")

    # ----- Pack the rows of the roles that train now
    batches = {}
    for role, scale in phase.trains.items():
        if scale > 0:
            keep_zero = bool(roles[role].entropy or roles[role].kl)
            batches[role] = pack(*assigned.of(role), settings.pack, settings.loss, keep_zero=keep_zero)
    clock.lap("pack")

    # ----- Update
    states, measured = policies.train_step(states, base, batches, phase, settings, bench.compute)
    found = {f"train/{name}": float(value) for name, value in jax.device_get(measured).items()}
    clock.lap("update")
    for role in batches:
        if found[f"train/{role}/gap_exceeded"]:
            raise RuntimeError(
                f"step {step}: sampler and trainer disagree on the {role}'s log-probabilities by "
                f"{found[f'train/{role}/gap_mean']:.4f} on average, above train.gap_bound ({settings.train.gap_bound})"
            )

    found |= rollout.metrics | design_mix(rollout.trees) | clock.laps()
    found |= {f"credit/{name}": value for name, value in assigned.metrics.items()}
    return states, rollout, assigned, found


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


def _record_episode(episodes: JsonLines, rollout: Rollout, assigned: Assigned, step: int, phase: str) -> None:
    """One tree of this step for people to read, with the advantages that were trained on."""
    index = step % len(rollout.trees)
    advantage = {
        (t.design, t.execution): float(a)
        for t, a in zip(assigned.trajectories, assigned.advantages, strict=True)
        if t.question == index
    }
    tree = rollout.trees[index]
    episodes.append(
        episode(
            tree,
            step=step,
            phase=phase,
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
