"""One policy of a team on its server: weights, optimiser, engine, checkpoints and metrics of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import jax

from metaagentx import policies
from metaagentx.checkpoint import Checkpoints, digest, forget
from metaagentx.learn.pack import pack
from metaagentx.learn.schedule import phase as phase_of
from metaagentx.metrics import MetricWriter, Progress
from metaagentx.pipeline import Pipeline
from metaagentx.policies import Weights
from metaagentx.rollout.at_work import Tools
from metaagentx.rollout.measure import measure_engines, measure_trajectories
from metaagentx.rollout.scheduler import run
from metaagentx.rollout.work import Work
from metaagentx.teams.credit import Earned, credit
from metaagentx.teams.errands import Order, across
from metaagentx.teams.learner import Sample
from metaagentx.teams.options import TeamOptions
from metaagentx.teams.play import play, scene
from metaagentx.teams.records import Pointer
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
        self._states, self._base = policies.states(cold, bench.settings), cold.base
        self._checkpoints = Checkpoints(workdir / "checkpoints", keep=bench.settings.train.keep)
        self.step, self._tokens, self._sizes = 0, 0, tuple[int, ...]()
        if self._checkpoints.latest() is not None:
            self._states, record = self._checkpoints.restore(forget(self._states))
            self.step, self._tokens, self._sizes = record["step"], record["tokens"], tuple(record["sizes"])
            writer.restore(record["history"])
        else:
            writer.rewind(-1)
        self._pipeline = Pipeline(0, bench.way).after(self.step, policies.acting(self._states, self._base))
        self._engines = bench.engines(*self._pipeline.newest)
        memory = bench.prepare(self._engines, self._states, self._base)
        if self.step == 0:
            writer.write(0, memory, phase="start")
        language = bench.language
        texts = language.wording, language.tool_texts
        self._scene = scene(bench.task, team, *texts, self._engines, bench.chat, bench.settings.sampling)
        self._found: dict[str, float] = {}  # what sampling measured
        self._begun = time.perf_counter()

    @property
    def tools(self) -> Tools:
        return self._bench.toolbox

    @property
    def kept(self) -> int:
        return min(self._checkpoints.steps())

    @property
    def ended(self) -> bool:
        options = self._bench.settings.train
        return self.step >= options.steps or 0 < options.token_budget <= self._tokens

    # ----- Sampling, as the main agent's policy

    def play(self, tools: Tools) -> tuple[list[TeamTree], float]:
        bench, settings, step = self._bench, self._bench.settings, self.step
        cursor = step * settings.train.questions
        with bench.sampling():
            played = play(
                bench.questions(cursor),
                self._scene,
                self._engines,
                bench.chat,
                tools,
                settings.sampling,
                seed=settings.seed,
                step=step,
                delegates=lambda question, rollout, _: across(step, cursor, question, rollout),
            )
        self._found = played.metrics
        self._tokens += int(sum(graded.rollout.tokens for tree in played.trees for graded in tree.rollouts))
        return played.trees, played.metrics["tools/idle_seconds"]

    # ----- Sampling, as a sub-agents' policy

    def errand(self, order: Order) -> Process[Errand]:
        question = self._bench.curriculum.question(order.question)
        setting = self._scene.setting(self.policy, self._bench.task.delivery(question))
        team = self._scene.team
        return run_errand(team.sub(order.sub), order.task, team, setting, marker(self._bench.task, self._team))

    def run(self, work: Process[None], tools: Tools) -> float:
        bench, settings, begun = self._bench, self._bench.settings, time.perf_counter()
        with bench.sampling():
            _, _, spent = run(
                work, self._engines, bench.chat, tools, settings.sampling, seed=settings.seed, step=self.step
            )
        seconds = time.perf_counter() - begun
        self._found = measure_engines([self._work()], seconds)
        return spent.idle_seconds

    def _work(self) -> Work:
        (engine,) = distinct(self._engines)
        work = engine.take_work()
        self._tokens += work.generated_tokens
        return work

    # ----- Learning

    def learn(self, samples: Sequence[Sample], idle: float) -> None:
        bench, settings, step, policy = self._bench, self._bench.settings, self.step, self.policy
        rows = [Earned(each.trajectory, each.reward, each.masked) for each in samples if each.trajectory is not None]
        with bench.sampling():
            assigned = credit(
                policy,
                rows,
                self._team,
                settings.credit,
                questions=settings.train.questions,
                sizes=self._sizes,
                seed=settings.seed,
                step=step,
            )
        phase, options = phase_of(settings.stages, settings.learners, step), settings.roles[policy]
        batches = {}
        if phase.trains[policy] > 0:
            keep_zero = bool(options.entropy or options.kl)
            batches[policy] = pack(
                assigned.trajectories,
                assigned.advantages,
                settings.pack,
                settings.loss,
                keep_zero=keep_zero,
                counts=assigned.counts,
            )
        begun = time.perf_counter()
        self._states, measured = policies.train_step(self._states, self._base, batches, phase, settings, bench.compute)
        self.step, self._sizes = step + 1, assigned.sizes
        self._pipeline = self._pipeline.after(self.step, policies.acting(self._states, self._base))
        bench.load(self._engines, *self._pipeline.oldest)
        found = {f"train/{name}": float(value) for name, value in jax.device_get(measured).items()}
        now = time.perf_counter()

        ages = [step - row.trajectory.version for row in rows] or [0]
        found |= self._found | {f"credit/{policy}/{name}": value for name, value in assigned.metrics.items()}
        found |= measure_trajectories([row.trajectory for row in rows])
        found |= {"train/staleness_mean": sum(ages) / len(ages), "train/staleness_max": float(max(ages))}
        found |= {"train/tokens": float(self._tokens), "team/samples": float(len(samples))}
        found |= {"time/update": now - begun, "time/step": now - self._begun, "time/idle": idle}
        found["time/idle_share"] = idle / (now - self._begun)
        self._begun = now
        self._check(found, stale=max(ages) > 0)
        self._writer.write(self.step, found, phase=phase.name)
        self._progress.update(self.step, phase=phase.name, tokens_per_second=found["rollout/tokens_per_second"])

    def _check(self, found: dict[str, float], *, stale: bool) -> None:
        """Raises RuntimeError where sampler and trainer disagree about tokens of the same weights."""
        if not stale and found.get(f"train/{self.policy}/gap_exceeded"):
            raise RuntimeError(
                f"step {self.step - 1}: sampler and trainer disagree on the {self.policy}'s log-probabilities by "
                f"{found[f'train/{self.policy}/gap_mean']:.4f} on average, above train.gap_bound"
            )

    def save(self) -> Pointer:
        record = {"step": self.step, "tokens": self._tokens, "sizes": list(self._sizes), "policy": self.policy}
        self._checkpoints.save(self.step, self._states, record | {"history": self._writer.history()})
        where = str(self._checkpoints.directory / str(self.step))
        return Pointer(self.policy, self.step, where, digest(policies.acting(self._states, None).full))

    def close(self) -> None:
        self._checkpoints.close()
