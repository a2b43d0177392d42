"""The main agent's server: rollouts whose sub-tasks are done elsewhere, one step after the other.

Killed at any moment, it goes on from its last checkpoint and plays the steps after it again: what its policy and its
tools answered is in its journal, and reports that came are in the store, so every sub-task is the same again. Grades
may not be (a sandbox fails now and then): what was recorded of a rollout first is what everybody trains on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from metaagentx.rollout.at_work import Tools
from metaagentx.teams.errands import rollout_key
from metaagentx.teams.learner import Learner, Sample, digest, lost_of, publish, record
from metaagentx.teams.options import MAIN, ExchangeOptions, MainReward
from metaagentx.teams.outbox import Outbox, Stopped
from metaagentx.teams.pulse import Pulse, Watch
from metaagentx.teams.recall import Answers, Recalled
from metaagentx.teams.records import Outcome
from metaagentx.teams.reward import main_reward
from metaagentx.teams.store import Store
from metaagentx.teams.tree import TeamTree


class Leader(Learner, Protocol):
    """The main agent's policy, and the questions that it works on."""

    @property
    def ended(self) -> bool:
        """Whether the last step of the run is made."""
        ...

    @property
    def tools(self) -> Tools:
        """What the main agent uses itself."""
        ...

    def play(self, tools: Tools, answers: Answers) -> tuple[list[TeamTree], float]:
        """The rollouts of the next step, and the seconds in which nothing but tools was under way.

        Calls of tools are `placed`; the policy is `repeat.Repeating` what `answers` hold.
        """
        ...


def lead(
    leader: Leader,
    store: Store,
    answers: Answers,
    pulse: Pulse,
    reward: MainReward,
    options: ExchangeOptions,
    save_every: int,
    stop: threading.Event,
) -> None:
    """Make all steps that there are. `answers`: of the main agent's policy and of its own tools.

    Raises:
      Stopped: `stop` was set. The weights are saved, and what was under way is made again.
      ValueError: a step that was made before came out otherwise.
    """
    publish(store, leader.save())
    try:
        tools = Recalled(leader.tools, answers)
        with Outbox(store, Watch(store, MAIN, options), tools, options, stop) as outbox:
            while not leader.ended:
                _step(leader, store, answers, pulse, reward, outbox)
                if leader.step % save_every == 0:
                    publish(store, leader.save())
                    answers.forget(leader.kept)
                if stop.is_set():
                    raise Stopped
    except Stopped:
        publish(store, leader.save())
        raise
    publish(store, leader.save())
    store.end(leader.step)


def _step(leader: Leader, store: Store, answers: Answers, pulse: Pulse, reward: MainReward, outbox: Outbox) -> None:
    step = leader.step
    pulse.say(f"playing step {step}")
    trees, idle = leader.play(outbox, answers)
    made = outcomes_of(step, trees)
    outcomes = store.put_outcomes(made)
    for ours, known in zip(made, outcomes, strict=True):
        if _fixed(ours) != _fixed(known):
            raise ValueError(f"rollout {ours.rollout} was played before, and came out otherwise: {known}, now {ours}")
    store.seal(step, len(outcomes))

    pulse.say(f"training step {step}")
    samples = samples_of(trees, outcomes, reward)
    leader.learn(samples, lost_of(outcomes), idle)
    record(store, MAIN, step, samples)


def _fixed(outcome: Outcome) -> tuple[str, float, float]:
    """What is the same whenever a step is played: grades are not."""
    return outcome.question, outcome.values["answered"], outcome.values["digest"]


def outcomes_of(step: int, trees: Sequence[TeamTree]) -> list[Outcome]:
    """What the sub-agents' servers are told of each rollout."""
    return [
        Outcome(
            rollout_key(step, q, k),
            step,
            tree.question.id,
            {
                "correct": graded.correct,
                "answered": float(graded.rollout.said.answer is not None),
                "masked": float(graded.masked),
                "digest": float(digest(graded.trajectory)),
            },
        )
        for q, tree in enumerate(trees)
        for k, graded in enumerate(tree.rollouts)
    ]


def samples_of(trees: Sequence[TeamTree], outcomes: Sequence[Outcome], reward: MainReward) -> list[Sample]:
    """What the main agent is trained on: its rollouts, with what `outcomes` (in their order) say that they earned."""
    rollouts = [graded for tree in trees for graded in tree.rollouts]
    samples = []
    for graded, outcome in zip(rollouts, outcomes, strict=True):
        values = outcome.values
        earned = main_reward(bool(values["answered"]), values["correct"], reward)
        samples.append(Sample(outcome.rollout, graded.trajectory, earned, bool(values["masked"])))
    return samples
