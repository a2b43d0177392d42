"""One policy of a team on its server: weights, optimiser, engine, checkpoints and metrics of its own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from metaagentx import policies
from metaagentx.checkpoint import Checkpoints, digest, forget
from metaagentx.learn.schedule import phase
from metaagentx.metrics import MetricWriter, Progress
from metaagentx.pipeline import Pipeline
from metaagentx.policies import Weights
from metaagentx.rollout.at_work import Tools
from metaagentx.rollout.compilation import count_compilations
from metaagentx.rollout.division import add
from metaagentx.rollout.measure import measure_spent, measure_trajectories, measure_work
from metaagentx.rollout.scheduler import run
from metaagentx.step import Place, told
from metaagentx.teams.credit import Earned, credit
from metaagentx.teams.errands import Order, across
from metaagentx.teams.learner import Sample
from metaagentx.teams.options import TeamOptions
from metaagentx.teams.play import play, scene
from metaagentx.teams.recall import Answers, placed
from metaagentx.teams.records import Pointer
from metaagentx.teams.repeat import Repeating
from metaagentx.teams.reward import marker
from metaagentx.teams.team import Errand, run_errand
from metaagentx.teams.tree import TeamTree
from metaagentx.workbench import Workbench, distinct
from metaagentx.workflow.protocol import Process


class Apprentice:
    """A policy that samples for its role and learns from what its samples earned.

    It is all that a server needs of one, whichever role it has (a `lead.Leader` and a `serve.Servant`).
    """

    def __init__(
        self,
        bench: Workbench,
        policy: str,
        team: TeamOptions,
        workdir: Path,
        cold: Weights,
        writer: MetricWriter,
        progress: Progress,
    ) -> None:
        """From the newest checkpoint in `workdir`, or from the weights `cold`, which it donates."""
        self.policy, self._bench, self._team = policy, bench, team
        self._writer, self._progress = writer, progress
        self._checkpoints = Checkpoints(workdir / "checkpoints", keep=bench.settings.train.keep)
        self._states, self._base = policies.states(cold, bench.settings), cold.base
        self._place = Place()
        if self._checkpoints.latest() is None:
            writer.rewind(-1)
        else:
            self._states, record = self._checkpoints.restore(forget(self._states))
            self._place = Place(**record["place"])
            writer.restore(record["history"])

        self._pipeline = Pipeline(0, bench.way).after(self.step, policies.acting(self._states, self._base))
        progress.update(self.step, phase="compiling")
        self._engines = bench.engines(*self._pipeline.newest)
        memory = bench.prepare(self._engines, self._states, self._base)
        if self.step == 0:
            writer.write(0, memory, phase="start")
        texts = bench.language.wording, bench.language.tool_texts
        self._scene = scene(bench.task, team, *texts, self._engines, bench.chat, bench.settings.sampling)
        self._found: dict[str, float] = {}  # what sampling measured
        self._begun = time.perf_counter()

    @property
    def step(self) -> int:
        return self._place.step

    @property
    def kept(self) -> int:
        return min(self._checkpoints.steps())

    @property
    def ended(self) -> bool:
        options = self._bench.settings.train
        return self.step >= options.steps or 0 < options.token_budget <= self._place.tokens

    @property
    def tools(self) -> Tools:
        return self._bench.toolbox

    def play(self, tools: Tools, answers: Answers) -> tuple[list[TeamTree], float]:
        """The main agent's: the rollouts of the next step."""
        bench, settings, place = self._bench, self._bench.settings, self._place
        with bench.sampling():
            played = play(
                bench.questions(place.cursor),
                self._scene,
                {role: Repeating(engine, answers) for role, engine in self._engines.items()},
                bench.chat,
                tools,
                settings.sampling,
                seed=settings.seed,
                step=place.step,
                delegates=lambda question, rollout, _: across(place.step, place.cursor, question, rollout),
                around=partial(placed, step=place.step),
            )
        self._found = _without_tools(played.metrics)
        return played.trees, played.metrics["tools/idle_seconds"]

    def errand(self, order: Order) -> Process[Errand]:
        """A sub-agent's: one sub-task. Raises ValueError if it is for another policy."""
        task, team = self._bench.task, self._scene.team
        if order.sub not in self._team.subs or self._team.subs[order.sub].role != self.policy:
            raise ValueError(f"policy {self.policy!r} has no sub-agent {order.sub!r}: who put this into the store?")
        question = self._bench.curriculum.question(order.question)
        setting = self._scene.setting(self.policy, task.delivery(question))
        return run_errand(team.sub(order.sub), order.task, team, setting, marker(task, self._team))

    def run(self, work: Process[None], tools: Tools) -> float:
        """Sub-agents': whatever there is to do before the next update."""
        bench, settings, begun = self._bench, self._bench.settings, time.perf_counter()
        with bench.sampling():
            arguments = self._engines, bench.chat, tools, settings.sampling
            _, _, spent = run(work, *arguments, seed=settings.seed, step=self.step)
        seconds = time.perf_counter() - begun
        found = measure_work(add([engine.take_work() for engine in distinct(self._engines)]), seconds)
        del found["rollout/generated_tokens"]  # of samples they are counted, whichever process made these
        self._found = found | _without_tools(measure_spent(spent, settings.train.questions))
        return spent.idle_seconds

    def learn(self, samples: Sequence[Sample], lost: Sequence[bool], idle: float) -> None:
        """Train one step, and write down what it was like."""
        bench, settings, place, policy = self._bench, self._bench.settings, self._place, self.policy
        now, begun = phase(settings.stages, settings.learners, place.step), time.perf_counter()

        # ----- Credit and pack
        rows = [Earned(each.trajectory, each.reward) for each in samples if each.trajectory is not None]
        with bench.sampling():
            assigned = credit(
                policy,
                rows,
                np.array(lost, np.bool_).reshape(-1, self._team.rollouts),
                self._team,
                settings.credit,
                sizes=place.sizes.get(policy, ()),
                seed=settings.seed,
                step=place.step,
            )
        batches = policies.batches({policy: assigned}, now, settings)

        # ----- Update, and sample with the new weights
        with count_compilations() as compiled:  # none, unless a batch was larger than any that was foreseen
            trained, measured = policies.train_step(self._states, self._base, batches, now, settings, bench.compute)
        self._states = trained
        self._pipeline = self._pipeline.after(place.step + 1, policies.acting(trained, self._base))
        bench.load(self._engines, *self._pipeline.newest)
        own = {"rollout/generated_tokens": float(sum(row.trajectory.generated for row in rows))}
        found = own | self._found  # in which a main agent's are the whole team's
        tokens = place.tokens + int(found["rollout/generated_tokens"])
        sizes = {policy: assigned.sizes} if assigned.sizes else {}
        self._place = Place(place.step + 1, place.cursor + settings.train.questions, tokens, sizes)

        # ----- Log
        ages = [place.step - row.trajectory.version for row in rows] or [0]
        found |= {f"credit/{policy}/{name}": value for name, value in assigned.metrics.items()}
        found |= measure_trajectories([row.trajectory for row in rows])
        found |= {"train/staleness_mean": sum(ages) / len(ages), "train/staleness_max": float(max(ages))}
        found |= {"train/tokens": float(tokens), "team/samples": float(len(samples))}
        found |= {"update/compilations": float(compiled.count)}
        found |= {"time/update": time.perf_counter() - begun}
        found = told(measured, found, now, place.step, settings.train.gap_bound)
        ended = time.perf_counter()
        seconds, self._begun = ended - self._begun, ended
        found |= {"time/step": seconds, "time/idle": idle, "time/idle_share": idle / seconds}
        self._writer.write(self.step, found, phase=now.name)
        self._progress.update(self.step, phase=now.name, tokens_per_second=found["rollout/tokens_per_second"])

    def save(self) -> Pointer:
        record = {"place": dataclasses.asdict(self._place), "seed": self._bench.settings.seed, "policy": self.policy}
        self._checkpoints.save(self.step, self._states, record | {"history": self._writer.history()})
        where = str(self._checkpoints.directory / str(self.step))
        return Pointer(self.policy, self.step, where, digest(policies.acting(self._states, self._base).parts))

    def close(self) -> None:
        self._checkpoints.close()


def _without_tools(metrics: Mapping[str, float]) -> dict[str, float]:
    """What takes sub-tasks to another server and back is a tool too, but no agent's."""
    return {name: value for name, value in metrics.items() if not name.startswith("tools/")}
