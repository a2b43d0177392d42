"""K rollouts of a team for each question: what training and evaluating a team call."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from metaagentx.rollout.at_work import Share, Tools, alone
from metaagentx.rollout.conversation import Dialogue
from metaagentx.rollout.engine import Engine
from metaagentx.rollout.measure import measure_spent, measure_trajectories, measure_work
from metaagentx.rollout.observed import Watched, observe
from metaagentx.rollout.options import SamplingOptions
from metaagentx.rollout.remote import Remote
from metaagentx.rollout.sample import digest, prompt_room
from metaagentx.rollout.trajectory import Trajectory
from metaagentx.tasks.task import GradingFailed, Question, Task, Verdict
from metaagentx.teams.measure import measure_teams
from metaagentx.teams.options import JUDGE, MAIN, TeamOptions
from metaagentx.teams.reward import main_reward, marker, sub_reward
from metaagentx.teams.team import Delegate, Rollout, Team, in_this_process, work
from metaagentx.teams.tree import Graded, GradedErrand, TeamTree
from metaagentx.workflow.conversation import Setting
from metaagentx.workflow.prompts import Wording
from metaagentx.workflow.protocol import Delivery, Fork, Outcome, Process
from metaagentx.workflow.room import Room

Delegates: TypeAlias = Callable[[int, int, Question], Delegate]
"""Who does the sub-tasks of a rollout: by the numbers of the question and of the rollout, and the question."""
Around: TypeAlias = Callable[[Process[list[TeamTree]]], Process[list[TeamTree]]]
"""Stands between the rollouts and whoever answers them."""
Ended: TypeAlias = Callable[[], Graded]
"""A rollout that has ended: called, it waits for its grades."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What all rollouts of a step have in common."""

    task: Task
    options: TeamOptions
    wording: Wording
    tool_texts: Mapping[str, str]  # what agents are told of their tools
    rooms: Mapping[str, Room]  # how long prompts may become, by role

    @property
    def team(self) -> Team:
        return Team.of(self.options)

    def setting(self, role: str, delivery: Delivery) -> Setting:
        """Of an agent of this role."""
        texts = dict(self.tool_texts)
        if role == MAIN:
            texts |= {sub.name: sub.text for sub in self.team.subs if sub.description}
        return Setting(delivery, self.wording, role, texts, self.rooms[role])

    def beside(self, number: int, rollout: int, question: Question) -> Delegate:
        """Sub-agents in the same program (one of `Delegates`)."""
        settings = {role: self.setting(role, self.task.delivery(question)) for role in self.options.sub_roles}
        return in_this_process(self.team, settings, marker(self.task, self.options))


def scene(
    task: Task,
    options: TeamOptions,
    wording: Wording,
    tool_texts: Mapping[str, str],
    engines: Mapping[str, Engine | Remote],
    chat: Dialogue,
    sampling: Mapping[str, SamplingOptions],
) -> Scene:
    """The scene in which `engines` answer, whichever roles they are here for."""
    rooms = {
        role: prompt_room(engine, chat, options.prompt_tokens, sampling[role].max_tokens)
        for role, engine in engines.items()
    }
    return Scene(task, options, wording, tool_texts, rooms)


def forest(questions: Sequence[Question], scene: Scene, delegates: Delegates) -> Process[list[TeamTree]]:
    """All rollouts side by side. Grading begins as one ends, and is waited for when all have ended."""
    branches = tuple(_tree(number, question, scene, delegates) for number, question in enumerate(questions))
    trees: tuple[tuple[Ended, ...], ...] = yield Fork(branches, "question")
    return [TeamTree(question, [end() for end in tree]) for question, tree in zip(questions, trees, strict=True)]


def _tree(number: int, question: Question, scene: Scene, delegates: Delegates) -> Process[tuple[Ended, ...]]:
    branches = tuple(_rollout(question, scene, delegates(number, k, question)) for k in range(scene.options.rollouts))
    ended: tuple[Ended, ...] = yield Fork(branches, "design")
    return ended


def _rollout(question: Question, scene: Scene, delegate: Delegate) -> Process[Ended]:
    setting = scene.setting(MAIN, scene.task.delivery(question))
    rollout = yield from work(question.prompt, scene.team, setting, delegate)
    return partial(grade, rollout, scene.task.grading(question, rollout.said.answer), scene.options)


def grade(rollout: Rollout, verdict: Verdict, options: TeamOptions) -> Graded:
    """A rollout with its rewards, as soon as its grades are there.

    It is masked, with its sub-tasks, where anything of it was lost to our own faults: all of it then had to do without.
    """
    outcomes = rollout.outcome, *(errand.said.outcome for errand in rollout.errands)
    masked, correct = Outcome.FAILED in outcomes, 0.0
    marks: list[float | None] = [None] * len(rollout.errands)
    try:
        correct = verdict()
        marks = [None if errand.mark is None else errand.mark() for errand in rollout.errands]
    except GradingFailed:
        masked = True
    errands = [
        GradedErrand(errand, mark, sub_reward(errand, mark or 0.0, correct, options.sub_reward))
        for errand, mark in zip(rollout.errands, marks, strict=True)
    ]
    reward = main_reward(rollout.said.answer is not None, correct, options.main_reward)
    return Graded(rollout, correct, reward, masked, errands)


@dataclass(frozen=True, slots=True)
class Played:
    """What a team did on a batch of questions. Trajectories appear in their rollouts too; no judge's is among them."""

    trees: list[TeamTree]
    trajectories: list[Trajectory]
    metrics: dict[str, float]

    def digest(self) -> str:
        """A hash of what training takes from it: tokens, log-probabilities and rewards."""
        rollouts = [rollout for tree in self.trees for rollout in tree.rollouts]
        rewards = [[rollout.reward, *(errand.reward for errand in rollout.errands)] for rollout in rollouts]
        return digest(rewards, self.trajectories)


def play(
    questions: Sequence[Question],
    scene: Scene,
    engines: Mapping[str, Watched],
    chat: Dialogue,
    toolbox: Tools,
    sampling: Mapping[str, SamplingOptions],
    *,
    seed: int,
    step: int,
    delegates: Delegates | None = None,
    around: Around | None = None,
    share: Share = alone,
) -> Played:
    """Have the team work K times on each question.

    `delegates`: who does the sub-tasks; None: sub-agents beside their main agents. The same arguments and weights give
    the same rollouts, whatever ran before.
    """
    process = forest(questions, scene, delegates or scene.beside)
    process = process if around is None else around(process)
    found = observe(process, engines, chat, toolbox, sampling, seed=seed, step=step, share=share)
    trees = found.value
    trajectories = attach(trees, [row for row in found.trajectories if row.agent != JUDGE])
    teams = measure_teams(trees)
    if teams["team/errands"] and teams["team/unmarked"] == 1 and scene.options.sub_reward.local:
        logging.warning("nobody could mark any report of step %d: team.sub_reward.local was earned by none", step)
    metrics = {
        **measure_trajectories(trajectories),
        **measure_work(found.work, found.seconds),
        **teams,
        **measure_spent(found.spent, len(trees)),
        "rollout/compilations": float(found.compilations),
    }
    return Played(trees, trajectories, metrics)


def attach(trees: Sequence[TeamTree], trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Join trajectories, in the order of the fork paths, to their rollouts; of a sub-task `execution` is its number.

    A sub-task in which nothing was sampled has no trajectory; one that ran in another program has none here.
    """
    by_rollout: dict[tuple[int, int], list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        by_rollout[trajectory.question, trajectory.design].append(trajectory)
    joined = []
    for q, tree in enumerate(trees):
        for k, rollout in enumerate(tree.rollouts):
            own = by_rollout[q, k]
            rollout.trajectory = next((row for row in own if row.role == MAIN), None)
            subs = iter([row for row in own if row.role != MAIN])
            for number, errand in enumerate(rollout.errands):
                if errand.errand.tokens and errand.errand.turns:  # those of another program are not known here
                    errand.trajectory = dataclasses.replace(next(subs), execution=number)
            joined += rollout.trajectories
    return joined
