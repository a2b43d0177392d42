"""One step of reinforcement learning: sample, grade, credit, pack, update."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax

from metaagentx import policies
from metaagentx.hosts import insist
from metaagentx.learn.schedule import Phase, phase
from metaagentx.learn.update import Metrics
from metaagentx.pipeline import Pipeline
from metaagentx.policies import States
from metaagentx.policy.params import Params
from metaagentx.rollout.compilation import count_compilations
from metaagentx.system import Credited, Engines, Sampled, Sizes
from metaagentx.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is: beside its states and its pipeline, all that its next step depends on."""

    step: int = 0  # steps behind it
    cursor: int = 0  # train questions asked
    tokens: int = 0  # generated in training
    sizes: Sizes = field(default_factory=dict)  # what alignment goes by


@dataclass(frozen=True, slots=True)
class Step:
    """One step of training, whose update may still be under way."""

    place: Place  # after it
    phase: Phase
    sampled: Sampled
    credited: Credited
    known: Mapping[str, float]  # metrics of all but the update
    measured: Metrics  # of the update, on the devices

    def metrics(self, gap_bound: float) -> dict[str, float]:
        """All metrics, as soon as the update is computed. Raises as `told` does."""
        return told(self.measured, self.known, self.phase, self.place.step - 1, gap_bound)


def told(measured: Metrics, known: Mapping[str, float], phase: Phase, step: int, gap_bound: float) -> dict[str, float]:
    """The metrics of step `step`: those `known`, and what its update `measured`, as soon as that is computed.

    Where older weights sampled, the gap between sampler and trainer is called a drift: it is no fault.

    Raises:
      RuntimeError: sampler and trainer disagree about tokens of the same weights.
    """
    clock = Clock()
    found = {f"train/{name}": float(value) for name, value in jax.device_get(measured).items()}
    clock.lap("update")
    known = {**known} | {name: known[name] + seconds for name, seconds in clock.laps().items()}
    if known["train/staleness_max"]:
        drifts = {name.replace("/gap_", "/drift_"): value for name, value in found.items()}
        return known | {name: value for name, value in drifts.items() if not name.endswith("_exceeded")}
    for role in phase.trains:
        if found.get(f"train/{role}/gap_exceeded"):
            raise RuntimeError(
                f"step {step}: sampler and trainer disagree on the {role}'s log-probabilities by "
                f"{found[f'train/{role}/gap_mean']:.4f} on average, above train.gap_bound ({gap_bound})"
            )
    return known | found


def one_step(
    bench: Workbench, engines: Engines, states: States, base: Params | None, pipeline: Pipeline, place: Place
) -> tuple[States, Pipeline, Step]:
    """One step of training: a function of the states, the pipeline and the place alone.

    `states` are donated. What is returned of them, in `pipeline` and in `Step.measured` may still be computed.
    """
    settings, step, clock = bench.settings, place.step, Clock()
    now = phase(settings.stages, settings.learners, step)

    # ----- Sample and grade
    questions = bench.questions(place.cursor)
    bench.load(engines, *pipeline.oldest)
    sampled: Sampled = bench.sample(questions, engines, step=step)
    insist(f"rollout of step {step}", sampled.digest(), "their code or data differ")
    clock.lap("rollout")

    # ----- Credit: one advantage a trajectory
    with bench.sampling():  # where nothing else is computed now
        credited = bench.system.credit(sampled, place.sizes, seed=settings.seed, step=step)
    clock.lap("credit")

    # ----- Pack the rows of the roles that train now
    batches = policies.batches(credited.roles, now, settings)
    clock.lap("pack")

    # ----- Update, and the new weights go to where sampling happens
    with count_compilations() as compiled:  # none, unless a batch was larger than any that was foreseen
        states, measured = policies.train_step(states, base, batches, now, settings, bench.compute)
    pipeline = pipeline.after(step + 1, policies.acting(states, base))
    clock.lap("update")

    ages = [step - trajectory.version for role in batches for trajectory in credited.roles[role].trajectories] or [0]
    known = sampled.metrics | credited.metrics | clock.laps()
    known |= {"update/compilations": float(compiled.count)}
    known |= {"train/staleness_mean": sum(ages) / len(ages), "train/staleness_max": float(max(ages))}
    after = Place(
        step + 1,
        place.cursor + len(questions),
        place.tokens + int(sampled.metrics["rollout/generated_tokens"]),
        credited.sizes,
    )
    return states, pipeline, Step(after, now, sampled, credited, known, measured)


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
