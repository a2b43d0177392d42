"""The one thing that servers of a team share: a small store, in SQLite on one machine or PostgreSQL for several.

Delivery is at least once, and every effect happens once. A sub-task is put under a key (again: no effect), leased for
a while, and finished with the lease's fence: a server that slept through its lease is told so and changes nothing.
A sub-task that nobody can do becomes a dead letter: a few failures that servers reported are enough, but of leases that
ended without a word it takes many, for most servers that die do not die of their sub-tasks. The only clock is the
database's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaagentx.teams import schema
from metaagentx.teams.database import Execute, open_database
from metaagentx.teams.options import ExchangeOptions
from metaagentx.teams.records import Beat, Lease, Outcome, Pointer, Report, SubTask, Trained

ALONE = 2  # leases of a sub-task that were lost, after which it is done with nothing beside it


class Store:
    """The records of one run. Methods may be called from several threads, and again after a failure."""

    def __init__(self, url: str, run: str, options: ExchangeOptions | None = None, who: str = "this program") -> None:
        """`options`: how often a sub-task may fail. `who`: uses it, for messages.

        Raises:
          ValueError: `url` cannot be used, or the database was made by another version of this program.
        """
        self._database, self._run, self._options = open_database(url, who), run, options or ExchangeOptions()
        self._database.run(self._prepare)

    def close(self) -> None:
        self._database.close()

    # ----- Sub-tasks: from the main agent's server to those of its sub-agents

    def put(self, tasks: Sequence[SubTask], depth: int) -> int:
        """Offer sub-tasks of one policy; how many were taken, from the first.

        No more than `depth` wait or are worked on at a time: offer the rest again later.

        Raises:
          ValueError: they are of several policies; or one of them is there already, and differs.
        """
        if not tasks:
            return 0
        policy = tasks[0].policy
        if any(task.policy != policy for task in tasks):
            raise ValueError("store.put: sub-tasks of several policies; put each policy's apart")

        if self._ask(schema.OPEN, policy=policy)[0][0] >= depth:
            return 0

        def work(execute: Execute) -> int:
            ((open_now,),) = execute(schema.OPEN, {"run": self._run, "policy": policy}).found
            taken = 0
            for task in tasks:
                if open_now >= depth:
                    break
                values = {name: getattr(task, name) for name in ("key", "policy", "step", "rollout", "body")}
                if execute(schema.PUT, {"run": self._run, **values}).changed:
                    open_now += 1
                elif execute(schema.SAID, {"run": self._run, "key": task.key}).found != [(task.body,)]:
                    raise ValueError(f"sub-task {task.key} is there already, and says something else than {task.body}")
                taken += 1
            return taken

        return self._database.run(work)

    def lease(self, policy: str, most: int, seconds: float, holder: str, last: int) -> list[Lease]:
        """Take up to `most` sub-tasks, each for `seconds`; those whose lease expired are taken again.

        Oldest first, of those that lost the fewest leases. One that lost `ALONE` may be what kills its servers: it is
        taken before the others where the holder has none, and then none is taken beside it.

        `last`: the last step whose sub-tasks may be taken.
        """
        if not self._ask(schema.THERE, policy=policy, last=last):
            return []
        held = [losses for (losses,) in self._ask(schema.HELD, policy=policy, holder=holder)]
        if any(losses >= ALONE for losses in held):
            return []

        def work(execute: Execute) -> list[Lease]:
            own = {"run": self._run, "policy": policy}
            execute(schema.EXPIRE, {**own, "losses": self._options.losses})
            values = {**own, "seconds": seconds, "holder": holder, "last": last}
            found = []
            if not held:
                found = execute(schema.LEASE, {**values, "most": 1, "least": ALONE, "below": sys.maxsize}).found
            if not found:
                found = execute(schema.LEASE, {**values, "most": most, "least": 0, "below": ALONE}).found
            return [
                Lease(SubTask(key, policy, step, rollout, body), fence)
                for _, key, policy, step, rollout, body, fence in sorted(found)
            ]

        return self._database.run(work)

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Keep a lease for `seconds` from now; whether it was still ours."""
        return self._change(schema.RENEW, key=lease.task.key, fence=lease.fence, seconds=seconds)

    def finish(self, lease: Lease, reply: str, version: int) -> bool:
        """Hand in a result, made with weights of `version`; False if the lease was lost: then nothing changed."""
        values = {"key": lease.task.key, "fence": lease.fence, "reply": reply, "version": version}

        def work(execute: Execute) -> bool:
            if execute(schema.FINISH, {"run": self._run, **values}).changed:
                return True
            # Handed in before, and the answer was lost on its way.
            return bool(execute(schema.FINISHED, {"run": self._run, "key": lease.task.key, "fence": lease.fence}).found)

        return self._database.run(work)

    def release(self, lease: Lease) -> bool:
        """Say that a sub-task failed, to be tried again or to become a dead letter; whether it was still ours."""
        return self._change(schema.RELEASE, key=lease.task.key, fence=lease.fence, attempts=self._options.attempts)

    def give_back(self, holder: str) -> None:
        """Let go of every lease that `holder` has and will not work on, as if it had never had them."""
        self._change(schema.GIVE_BACK, holder=holder)

    def reclaim(self, holder: str) -> None:
        """End every lease that `holder` has without a word: a server that was killed and is back need not wait."""
        self._change(schema.RECLAIM, holder=holder)

    def reports(self, keys: Iterable[str]) -> list[Report]:
        """Of these sub-tasks, those that have ended."""

        found = self._ask(schema.ENDED, keys=json.dumps(list(keys)))
        return [Report(key, reply if status == "done" else None, version) for key, status, reply, version in found]

    def tasks(self, step: int, policy: str) -> list[tuple[SubTask, Report | None]]:
        """Every sub-task of a step for one policy, in the order in which they came, with how it ended."""
        found = self._ask(schema.TASKS, step=step, policy=policy)
        return [
            (
                SubTask(key, policy, step, rollout, body),
                Report(key, reply if status == "done" else None, version) if status in ("done", "dead") else None,
            )
            for key, rollout, body, status, reply, version in found
        ]

    # ----- Outcomes: what the rollouts of a step earned

    def put_outcomes(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Record outcomes; those that are recorded, in the same order: what was said first stays."""

        def work(execute: Execute) -> list[Outcome]:
            kept = []
            for outcome in outcomes:
                body = json.dumps(dict(outcome.values), sort_keys=True)
                values = {"run": self._run, "rollout": outcome.rollout, "step": outcome.step}
                execute(schema.OUTCOME, {**values, "question": outcome.question, "body": body})
                ((known,),) = execute(schema.KNOWN, {"run": self._run, "rollout": outcome.rollout}).found
                kept.append(replace(outcome, values=json.loads(known)))
            return kept

        return self._database.run(work)

    def seal(self, step: int, rollouts: int) -> None:
        """Say that `step` has so many rollouts, and that all of their sub-tasks have been put."""
        self._change(schema.SEAL, step=step, rollouts=rollouts)

    def outcomes(self, step: int) -> list[Outcome] | None:
        """All outcomes of a step, in the order of rollouts; None while it is not sealed or some are missing."""

        sealed = self._ask(schema.SEALED, step=step)
        found = self._ask(schema.OUTCOMES, step=step) if sealed else []
        if not sealed or len(found) < sealed[0][0]:
            return None
        return [Outcome(rollout, step, question, json.loads(body)) for rollout, question, body in found]

    def steps(self) -> list[int]:
        """The sealed steps."""
        return [step for (step,) in self._ask(schema.STEPS)]

    def policies(self) -> list[str]:
        """The policies that sub-tasks have been put for."""
        return [policy for (policy,) in self._ask(schema.POLICIES)]

    # ----- What was trained on, for whoever audits a run

    def trained(self, policy: str, step: int, samples: Mapping[str, Trained]) -> None:
        """Record the samples that a policy's step was made of, by key.

        Raises:
          ValueError: the same step of the same policy was made of other samples before.
        """

        def work(execute: Execute) -> None:
            own = {"run": self._run, "policy": policy, "step": step}
            before = {key: Trained(*told) for key, *told in execute(schema.TRAINED_IN, own).found}
            if before and before != dict(samples):
                raise ValueError(f"step {step} of policy {policy!r} was made of other samples before: {before}")
            for key, told in samples.items():
                execute(schema.TRAIN, {**own, "key": key, "reward": told.reward, "digest": told.digest})

        self._database.run(work)

    def samples(self, policy: str) -> list[tuple[int, str, Trained]]:
        """Step and key of every sample that a policy's steps were made of, and what it was told of it."""
        return [(step, key, Trained(*told)) for step, key, *told in self._ask(schema.TRAINED, policy=policy)]

    # ----- The run itself

    def agree(self, about: str) -> str:
        """What the first server of this run said that it is about: this, if it is the first."""

        def work(execute: Execute) -> str:
            execute(schema.AGREE, {"run": self._run, "about": about})
            ((said,),) = execute(schema.ABOUT, {"run": self._run}).found
            return said

        return self._database.run(work)

    def own(self, policy: str, server: str) -> str:
        """Whose policy it is in this run: this server's, if it is the first that asks."""

        def work(execute: Execute) -> str:
            values = {"run": self._run, "policy": policy}
            execute(schema.OWN, {**values, "server": server})
            ((owner,),) = execute(schema.OWNER, values).found
            return owner

        return self._database.run(work)

    def about(self) -> str | None:
        """What was said first; None if no server has come yet."""
        found = self._ask(schema.ABOUT)
        return found[0][0] if found else None

    def end(self, steps: int) -> None:
        """Say that the run has so many steps, and no more."""
        self._change(schema.END, steps=steps)

    def ended(self) -> int | None:
        """How many steps the run has; None while that is not known."""
        found = self._ask(schema.HAS_ENDED)
        return found[0][0] if found else None

    # ----- Weights and signs of life

    def publish(self, pointer: Pointer, expected: int) -> bool:
        """Point at new weights, if the version pointed at is `expected` (-1: none yet); whether they are pointed at."""
        values = {"policy": pointer.policy, "version": pointer.version, "uri": pointer.uri, "digest": pointer.digest}

        def work(execute: Execute) -> bool:
            found = execute(schema.POINTER, {"run": self._run, "policy": pointer.policy}).found
            if found and found[0] == (pointer.version, pointer.uri, pointer.digest):
                return True  # said before, and the answer was lost on its way
            if (found[0][0] if found else -1) != expected:
                return False
            return execute(schema.POINT, {"run": self._run, "expected": expected, **values}).changed == 1

        return self._database.run(work)

    def pointer(self, policy: str) -> Pointer | None:
        """The newest weights of a policy."""
        found = self._ask(schema.POINTER, policy=policy)
        return Pointer(policy, *found[0]) if found else None

    def beat(self, server: str, text: str) -> None:
        """Say that a server lives, and what it is doing."""
        self._change(schema.BEAT, server=server, body=text)

    def beats(self) -> list[Beat]:
        """Every server's last sign of life."""
        return [Beat(server, age, text) for server, age, text in self._ask(schema.BEATS)]

    def _prepare(self, execute: Execute) -> None:
        execute("{alone}", {})  # servers start together, and tables are made once
        for table in schema.TABLES:
            execute(table, {})
        found = execute("SELECT version FROM team_schema", {}).found
        if not found:
            execute("INSERT INTO team_schema (version) VALUES (:version)", {"version": schema.SCHEMA})
        elif found != [(schema.SCHEMA,)]:
            raise ValueError(
                f"the store has schema {found[0][0]}, this program writes {schema.SCHEMA}: use another database"
            )

    def _change(self, statement: str, **values: Any) -> bool:
        return self._database.run(lambda execute: execute(statement, {"run": self._run, **values}).changed > 0)

    def _ask(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        return self._database.look(statement, {"run": self._run, **values})
