"""A team without a model: replies are a function of a call's ids and of the weights, which are a hash of all that they
were trained on. So the last weights of two runs are equal only if every sample of every step was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.sampled import Ask, Sampled
from metaagentx.rollout.scheduler import run
from metaagentx.sections import plain
from metaagentx.tasks.task import Question
from metaagentx.teams.errands import across, errand_key
from metaagentx.teams.journal import Journal
from metaagentx.teams.lead import lead, outcomes_of, samples_of
from metaagentx.teams.learner import Sample
from metaagentx.teams.options import ExchangeOptions, SubAgentOptions, TeamOptions
from metaagentx.teams.play import Scene, attach, forest
from metaagentx.teams.pulse import Pulse
from metaagentx.teams.recall import Answers, placed
from metaagentx.teams.records import Pointer
from metaagentx.teams.repeat import Repeating
from metaagentx.teams.reward import marker
from metaagentx.teams.serve import serve
from metaagentx.teams.store import Store
from metaagentx.teams.team import run_errand
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Outcome, ToolCall, ToolResult
from metaagentx.workflow.room import CHARACTERS
from tests.rollout.arithmetic import Sums
from tests.rollout.scripted import END, Letters

TEAM = TeamOptions(
    system_prompt="Lead.",
    subs={"adder": SubAgentOptions("adds"), "guesser": SubAgentOptions("guesses", role="guess")},
    rollouts=3,
    rounds=2,
    errands=5,
    exchange=ExchangeOptions(depth=6, workers=4, lease_seconds=5, beat_seconds=0.2),
)
QUESTIONS, SAVE_EVERY = 2, 3
ROLES = TEAM.learners  # main, guess, sub


class Additions(Sums):
    """The question "7+2" has the answer "9", and so has the sub-task."""

    def question(self, split, index, *, seed=0):
        return Question(str(index), "sum", f"{index}+2", "mathematics")

    def find(self, prompt):
        number, plus, rest = prompt.partition("+")
        return Question(number, "sum", prompt, "mathematics") if plus and rest == "2" else None


class NoTools:
    def submit(self, call: ToolCall) -> Future[ToolResult]:
        raise AssertionError(f"nobody has the tool {call.name}")


class Dice:
    """Answers a call by its ids and the weights; `pause` seconds a step, `slots` calls."""

    def __init__(self, weights: str, version: int, pause: float = 0.0, slots: int = 3) -> None:
        self.weights, self.version, self.pause, self.slots = weights, version, pause, slots
        self.queue: list[Ask] = []
        self.may_go_on = lambda: True

    def submit(self, ask: Ask) -> None:
        self.queue.append(ask)

    def hold(self, conversation: int) -> None:
        pass

    def release(self, conversation: int) -> None:
        pass

    def drop(self) -> None:
        self.queue.clear()

    def step(self):
        time.sleep(self.pause)
        while not self.may_go_on():
            time.sleep(0.01)
        now, self.queue = self.queue[: self.slots], self.queue[self.slots :]
        return [(ask.ticket, self.reply(ask)) for ask in now]

    def reply(self, ask: Ask) -> Sampled:
        draw = random.Random(f"{self.weights}/{ask.ids}")
        asked = next(message.content for message in ask.messages if message.role == "user")
        number = draw.choice((int(asked.partition("+")[0]) + 2, draw.randrange(100)))
        delegates = ask.role == "main" and draw.random() < 0.7
        names = draw.choices(tuple(TEAM.subs), k=draw.randrange(1, 4)) if delegates else ()
        text = "".join(called(name, f"{draw.randrange(20)}+2") for name in names)
        text = text or (f"={number}" if draw.random() < 0.9 else "well")
        return spoken(text, draw)


def spoken(text: str, draw: random.Random) -> Sampled:
    tokens = np.array([*map(ord, text), END], np.int32)
    return Sampled(tokens, np.array([draw.random() for _ in tokens], np.float32), Outcome.OK)


def called(name: str, task: str) -> str:
    return "<tool_call>" + json.dumps({"name": name, "arguments": {"task": task}}) + "</tool_call>"


class Pretend:
    """One policy. A step of training hashes its samples into the weights; a checkpoint is a small file."""

    def __init__(self, policy: str, workdir: Path | None, steps: int, pause: float = 0.0) -> None:
        self.policy, self.steps, self.pause, self._folder = policy, steps, pause, workdir
        self.idle = 0.0
        self.weights, self.step = policy, 0
        if workdir is not None:
            workdir.mkdir(parents=True, exist_ok=True)
            saved = sorted(workdir.glob("*.json"))
            if saved:
                self.weights, self.step = json.loads(saved[-1].read_text())

    tools = NoTools()

    @property
    def scene(self) -> Scene:
        return SCENE

    @property
    def ended(self) -> bool:
        return self.step >= self.steps

    @property
    def kept(self) -> int:
        return min(int(path.stem) for path in self._folder.glob("*.json"))

    def sampler(self) -> Dice:
        return Dice(self.weights, self.step, self.pause)

    def learn(self, samples, lost, idle: float) -> None:
        time.sleep(self.pause)
        found = hashlib.sha256(f"{self.weights}/{[*lost]}".encode())
        for sample in samples:
            found.update(repr((sample.key, sample.reward, sample.masked)).encode())
            if (row := sample.trajectory) is not None:
                found.update(row.tokens.tobytes() + row.logprobs.tobytes() + row.loss_mask.tobytes())
                found.update(repr((row.question, row.design, row.execution, row.turn, row.role, row.agent)).encode())
        self.weights, self.step, self.idle = found.hexdigest(), self.step + 1, self.idle + idle

    def save(self) -> Pointer:
        path = self._folder / f"{self.step:06}.json"
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.write_text(json.dumps([self.weights, self.step]))
            draft.replace(path)
        for old in sorted(self._folder.glob("*.json"))[:-2]:
            old.unlink()
        return Pointer(self.policy, self.step, str(path), self.weights)

    # ----- As the main agent's, and as the sub-agents'

    def play(self, tools, answers):
        cursor = self.step * QUESTIONS
        scene, step = self.scene, self.step
        work = placed(forest(questions(cursor), scene, lambda q, k, _: across(step, cursor, q, k)), step)
        engines = {"main": Repeating(self.sampler(), answers)}
        trees, rows, spent = run(work, engines, Letters(), tools, SAMPLING, seed=0, step=self.step)
        attach(trees, rows)
        return trees, spent.idle_seconds

    def errand(self, order):
        question = Additions().question("train", order.question)
        setting = SCENE.setting(self.policy, SCENE.task.delivery(question))
        return run_errand(SCENE.team.sub(order.sub), order.task, SCENE.team, setting, marker(SCENE.task, TEAM))

    def run(self, work, tools):
        _, _, spent = run(work, {self.policy: self.sampler()}, Letters(), tools, SAMPLING, seed=0, step=self.step)
        return spent.idle_seconds


SCENE = Scene(Additions(), TEAM, Wording(), {}, dict.fromkeys(ROLES, CHARACTERS))
SAMPLING = dict.fromkeys(ROLES, SamplingOptions(1.0, 1000))


def questions(cursor: int) -> list[Question]:
    return [SCENE.task.question("train", number) for number in range(cursor, cursor + QUESTIONS)]


def server(
    policy: str,
    url: str,
    name: str,
    workdir: Path,
    steps: int,
    pause: float = 0.0,
    stop: threading.Event | None = None,
    made=Pretend,
    exchange: ExchangeOptions = TEAM.exchange,
) -> Pretend:
    """One server, from its start to the end of the run."""
    store, stop = Store(url, name, exchange), stop or threading.Event()
    about = {"team": plain(replace(TEAM, exchange=exchange)), "train": {"questions": QUESTIONS}}
    store.agree(json.dumps(about))
    learner = made(policy, workdir, steps, pause)
    with Pulse(store, policy, exchange) as pulse:
        if policy == "main":
            with closing(Answers(workdir / "answers.db")) as answers:
                lead(learner, store, answers, pulse, TEAM.main_reward, exchange, SAVE_EVERY, stop)
        else:
            with closing(Journal(workdir / "journal.db")) as journal:
                serve(learner, store, journal, pulse, TEAM.sub_reward, exchange, f"{policy}@test", SAVE_EVERY, stop)
    store.close()
    return learner


def process(policy: str, url: str, name: str, workdir: Path, steps: int, pause: float, *more) -> None:
    """A server as a process of its own, which says on stderr what goes wrong."""
    logging.basicConfig(filename=workdir.with_suffix(".log"), level=logging.WARNING)
    try:
        server(policy, url, name, workdir, steps, pause, None, *more)
    except BaseException:
        logging.exception("server %s", policy)
        os._exit(1)


def alone(steps: int) -> dict[str, str]:
    """The weights of all policies after so many steps in one process."""
    team = {role: Pretend(role, None, steps) for role in ROLES}
    for step in range(steps):
        engines = {role: learner.sampler() for role, learner in team.items()}
        process = forest(questions(step * QUESTIONS), SCENE, SCENE.beside)
        trees, rows, _ = run(process, engines, Letters(), NoTools(), SAMPLING, seed=0, step=step)
        attach(trees, rows)
        mains = samples_of(trees, outcomes_of(step, trees), TEAM.main_reward)
        rollouts = [graded for tree in trees for graded in tree.rollouts]
        lost = [graded.masked for graded in rollouts]
        team["main"].learn(mains, lost, 0.0)
        errands = [
            (errand_key(each.key, number), errand, graded.masked)
            for each, graded in zip(mains, rollouts, strict=True)
            for number, errand in enumerate(graded.errands)
        ]
        for role in TEAM.sub_roles:
            own = [
                Sample(key, errand.trajectory, errand.reward, masked)
                for key, errand, masked in errands
                if errand.trajectory.role == role
            ]
            team[role].learn(own, lost, 0.0)
    return {role: learner.weights for role, learner in team.items()}
