"""A sub-agents' server: sub-tasks of whoever leads are done here, and what they earned is trained on, step by step.

Killed at any moment, it goes on from its last checkpoint. What it handed in is in its journal, so the steps after the
checkpoint are trained again on the same samples; what it did not hand in is done again.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Protocol

from metaagentx.rollout.at_work import Tools
from metaagentx.teams.errands import Order, read_reply
from metaagentx.teams.inbox import HAND_IN, TAKE, Inbox
from metaagentx.teams.journal import Journal
from metaagentx.teams.learner import Learner, Sample, lost_of, publish, record
from metaagentx.teams.options import JUDGE, ExchangeOptions, SubReward
from metaagentx.teams.outbox import Stopped
from metaagentx.teams.pulse import Pulse, Watch
from metaagentx.teams.records import Outcome
from metaagentx.teams.reward import sub_reward
from metaagentx.teams.store import Store
from metaagentx.teams.team import Errand
from metaagentx.workflow.protocol import Fork, Graft, Process, ToolCall, ToolCalls


class Servant(Learner, Protocol):
    """A sub-agents' policy, and how it does a sub-task."""

    @property
    def policy(self) -> str: ...

    @property
    def tools(self) -> Tools:
        """What sub-agents use."""
        ...

    def errand(self, order: Order) -> Process[Errand]:
        """One sub-task."""
        ...

    def run(self, work: Process[None], tools: Tools) -> float:
        """Run `work`; the seconds in which nothing but tools was under way."""
        ...


def serve(
    servant: Servant,
    store: Store,
    journal: Journal,
    pulse: Pulse,
    reward: SubReward,
    options: ExchangeOptions,
    holder: str,
    save_every: int,
    stop: threading.Event,
) -> None:
    """Do sub-tasks and train on them until the run ends. `holder`: this server, by the name of its work directory.

    Raises:
      Stopped: `stop` was set. The weights are saved, and sub-tasks under way are given back.
    """
    store.reclaim(holder)
    publish(store, servant.save())
    try:
        watch = Watch(store, servant.policy, options)
        while store.ended() != servant.step:
            step = servant.step
            pulse.say(f"serving step {step}")
            with Inbox(store, journal, watch, servant.tools, servant.policy, holder, step, options, stop) as inbox:
                idle = servant.run(_workers(servant, inbox, options.workers), inbox)
            outcomes = store.outcomes(step)
            if outcomes is None:
                continue  # the run has ended before this step

            pulse.say(f"training step {step}")
            samples = samples_of(step, servant.policy, store, journal, outcomes, reward, options.staleness)
            servant.learn(samples, lost_of(outcomes), idle)
            record(store, servant.policy, step, samples)
            if servant.step % save_every == 0:
                publish(store, servant.save())
                journal.forget(servant.kept)
            if stop.is_set():
                raise Stopped
    except Stopped:
        publish(store, servant.save())
        store.give_back(holder)
        raise
    publish(store, servant.save())


def _workers(servant: Servant, inbox: Inbox, count: int) -> Process[None]:
    yield Fork(tuple(_worker(servant, inbox) for _ in range(count)), "worker")


def _worker(servant: Servant, inbox: Inbox) -> Process[None]:
    """Take sub-tasks one by one, until there are none."""
    while True:
        (taken,) = yield ToolCalls((ToolCall(TAKE, {}, servant.policy),))
        if not taken.text:
            return
        number = int(taken.text)
        task = inbox.leases[number].task
        try:
            order = Order.of(task)
            work = servant.errand(order)
        except ValueError:  # this ends the server, but not for ever the next
            inbox.refuse(number)
            raise
        errand, rows = yield Graft(work, order.path, task.step)
        own = [dataclasses.replace(row, execution=order.number, turn=order.turn) for row in rows if row.agent != JUDGE]
        done = {"number": number, "errand": errand, "trajectory": next(iter(own), None)}
        yield ToolCalls((ToolCall(HAND_IN, done | {"version": servant.step}, servant.policy),))


def samples_of(
    step: int,
    policy: str,
    store: Store,
    journal: Journal,
    outcomes: list[Outcome],
    reward: SubReward,
    staleness: int,
) -> list[Sample]:
    """What a step of a sub-agents' policy is trained on: every sub-task that was done, with what it earned.

    Raises:
      ValueError: the journal lacks one, or holds another text or version than the store: it is not this server's; or it
        has let go of the tokens: the server went back further than to its oldest checkpoint.
    """
    by_rollout = {outcome.rollout: outcome.values for outcome in outcomes}
    tasks = sorted(store.tasks(step, policy), key=lambda each: each[0].key)
    done = [(task, report) for task, report in tasks if report is not None and report.text is not None]
    entries = journal.get([task.key for task, _ in done])
    samples = []
    for task, report in done:
        entry = entries.get(task.key)
        if entry is None or (entry.reply, entry.version, entry.task) != (report.text, report.version, task):
            raise ValueError(
                f"the journal and the store differ about sub-task {task.key}: give each server its workdir"
            )
        if not 0 <= step - entry.version <= staleness:
            raise ValueError(f"sub-task {task.key} was done by weights of version {entry.version}")
        if entry.trajectory is None and read_reply("", "", entry.reply).tokens:
            raise ValueError(
                f"the tokens of step {step} were let go, so policy {policy!r} cannot be trained on it again: "
                f"restore a checkpoint of step {step + 1} or later"
            )
        values = by_rollout[task.rollout]
        samples.append(Sample(task.key, entry.trajectory, earned(entry.reply, values, reward), bool(values["masked"])))
    return samples


def earned(reply: str, values: Mapping[str, float], reward: SubReward) -> float:
    """The reward of a sub-task by what was handed in and by the outcome of its rollout."""
    errand = read_reply("", "", reply)
    return sub_reward(errand, errand.mark() if errand.mark is not None else 0.0, values["correct"], reward)
