"""The one thing that servers of a team share: a small store, in SQLite on one machine or PostgreSQL for several.

Delivery is at least once, and every effect happens once. A sub-task is put under a key (again: no effect), leased for
a while, and finished with the lease's fence: a server that slept through its lease is told so and changes nothing.
Sub-tasks that nobody finishes become dead letters after `attempts` leases. The only clock is the database's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from metaagentx.teams.database import Execute, open_database
from metaagentx.teams.records import Beat, Lease, Outcome, Pointer, Report, SubTask

SCHEMA = 1

TABLES = (
    "CREATE TABLE IF NOT EXISTS team_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS team_tasks (
        number {serial}, run TEXT NOT NULL, key TEXT NOT NULL, policy TEXT NOT NULL, step BIGINT NOT NULL,
        rollout TEXT NOT NULL, body TEXT NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL,
        until DOUBLE PRECISION, holder TEXT, reply TEXT, version BIGINT, UNIQUE (run, key))""",
    "CREATE INDEX IF NOT EXISTS team_tasks_open ON team_tasks (run, policy, status, number)",
    """CREATE TABLE IF NOT EXISTS team_outcomes (
        run TEXT NOT NULL, rollout TEXT NOT NULL, step BIGINT NOT NULL, question TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (run, rollout))""",
    """CREATE TABLE IF NOT EXISTS team_steps (
        run TEXT NOT NULL, step BIGINT NOT NULL, rollouts BIGINT NOT NULL, PRIMARY KEY (run, step))""",
    """CREATE TABLE IF NOT EXISTS team_pointers (
        run TEXT NOT NULL, policy TEXT NOT NULL, version BIGINT NOT NULL, uri TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (run, policy))""",
    """CREATE TABLE IF NOT EXISTS team_beats (
        run TEXT NOT NULL, server TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (run, server))""",
)

PUT = """INSERT INTO team_tasks (run, key, policy, step, rollout, body, status, attempts)
    VALUES (:run, :key, :policy, :step, :rollout, :body, 'waiting', 0) ON CONFLICT (run, key) DO NOTHING"""
OPEN = """SELECT count(*) FROM team_tasks
    WHERE run = :run AND policy = :policy AND status IN ('waiting', 'leased')"""
BURY = """UPDATE team_tasks SET status = 'dead', version = -1
    WHERE run = :run AND policy = :policy AND status = 'leased' AND until < {now} AND attempts >= :attempts"""
LEASE = """UPDATE team_tasks
    SET status = 'leased', attempts = attempts + 1, until = {now} + :seconds, holder = :holder
    WHERE number IN (
        SELECT number FROM team_tasks
        WHERE run = :run AND policy = :policy AND (status = 'waiting' OR (status = 'leased' AND until < {now}))
        ORDER BY number LIMIT :most {skip_locked})
    RETURNING number, key, policy, step, rollout, body, attempts"""
RENEW = """UPDATE team_tasks SET until = {now} + :seconds
    WHERE run = :run AND key = :key AND status = 'leased' AND attempts = :fence AND until >= {now}"""
FINISH = """UPDATE team_tasks SET status = 'done', reply = :reply, version = :version
    WHERE run = :run AND key = :key AND status = 'leased' AND attempts = :fence AND until >= {now}"""
RELEASE = """UPDATE team_tasks SET status = CASE WHEN attempts >= :attempts THEN 'dead' ELSE 'waiting' END, version = -1
    WHERE run = :run AND key = :key AND status = 'leased' AND attempts = :fence"""
ENDED = """SELECT key, status, reply, version FROM team_tasks
    WHERE run = :run AND key = :key AND status IN ('done', 'dead')"""
FINISHED = """SELECT 1 FROM team_tasks WHERE run = :run AND key = :key AND status = 'done' AND attempts = :fence"""
TASKS = """SELECT key, rollout, body, status, reply, version FROM team_tasks
    WHERE run = :run AND step = :step AND policy = :policy ORDER BY key"""
OUTCOME = """INSERT INTO team_outcomes (run, rollout, step, question, body)
    VALUES (:run, :rollout, :step, :question, :body) ON CONFLICT (run, rollout) DO NOTHING"""
KNOWN = "SELECT body FROM team_outcomes WHERE run = :run AND rollout = :rollout"
SEAL = "INSERT INTO team_steps (run, step, rollouts) VALUES (:run, :step, :rollouts) ON CONFLICT (run, step) DO NOTHING"
SEALED = "SELECT rollouts FROM team_steps WHERE run = :run AND step = :step"
OUTCOMES = "SELECT rollout, question, body FROM team_outcomes WHERE run = :run AND step = :step ORDER BY rollout"
POINTER = "SELECT version, uri, digest FROM team_pointers WHERE run = :run AND policy = :policy"
BEAT = """INSERT INTO team_beats (run, server, at, body) VALUES (:run, :server, {now}, :body)
    ON CONFLICT (run, server) DO UPDATE SET at = {now}, body = :body"""
BEATS = "SELECT server, {now} - at, body FROM team_beats WHERE run = :run ORDER BY server"
POINT = """INSERT INTO team_pointers (run, policy, version, uri, digest)
    VALUES (:run, :policy, :version, :uri, :digest) ON CONFLICT (run, policy) DO UPDATE
    SET version = :version, uri = :uri, digest = :digest WHERE team_pointers.version = :expected"""


class Store:
    """The records of one run. Methods may be called from several threads, and again after a failure."""

    def __init__(self, url: str, run: str, attempts: int = 3) -> None:
        """`attempts`: leases of a sub-task before it is a dead letter.

        Raises:
          ValueError: `url` cannot be used, or the database was made by another version of this program.
        """
        self._database, self._run, self._attempts = open_database(url), run, attempts
        self._database.run(self._prepare)

    def close(self) -> None:
        self._database.close()

    # ----- Sub-tasks: from the main agent's server to those of its sub-agents

    def put(self, tasks: Sequence[SubTask], depth: int) -> int:
        """Offer sub-tasks of one policy; how many were taken, from the first.

        No more than `depth` wait or are worked on at a time: offer the rest again later.
        """
        if not tasks:
            return 0
        policy = tasks[0].policy
        if any(task.policy != policy for task in tasks):
            raise ValueError("store.put: sub-tasks of several policies; put each policy's apart")

        def work(execute: Execute) -> int:
            ((open_now,),) = execute(OPEN, {"run": self._run, "policy": policy}).found
            taken = 0
            for task in tasks:
                if open_now >= depth:
                    break
                values = {name: getattr(task, name) for name in ("key", "policy", "step", "rollout", "body")}
                open_now += execute(PUT, {"run": self._run, **values}).changed
                taken += 1
            return taken

        return self._database.run(work)

    def lease(self, policy: str, most: int, seconds: float, holder: str) -> list[Lease]:
        """Take up to `most` sub-tasks, oldest first, each for `seconds`; those whose lease expired are taken again."""

        def work(execute: Execute) -> list[Lease]:
            values = {"run": self._run, "policy": policy}
            execute(BURY, {**values, "attempts": self._attempts})
            found = execute(LEASE, {**values, "most": most, "seconds": seconds, "holder": holder}).found
            return [
                Lease(SubTask(key, policy, step, rollout, body), attempts)
                for _, key, policy, step, rollout, body, attempts in sorted(found)
            ]

        return self._database.run(work)

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Keep a lease for `seconds` from now; whether it was still ours."""
        return self._change(RENEW, key=lease.task.key, fence=lease.fence, seconds=seconds)

    def finish(self, lease: Lease, reply: str, version: int) -> bool:
        """Hand in a result, made with weights of `version`; False if the lease was lost: then nothing changed."""
        values = {"key": lease.task.key, "fence": lease.fence, "reply": reply, "version": version}

        def work(execute: Execute) -> bool:
            if execute(FINISH, {"run": self._run, **values}).changed:
                return True
            # Handed in before, and the answer was lost on its way.
            return bool(execute(FINISHED, {"run": self._run, "key": lease.task.key, "fence": lease.fence}).found)

        return self._database.run(work)

    def release(self, lease: Lease) -> bool:
        """Give a sub-task back, to be tried again or to become a dead letter; whether it was still ours."""
        return self._change(RELEASE, key=lease.task.key, fence=lease.fence, attempts=self._attempts)

    def reports(self, keys: Iterable[str]) -> list[Report]:
        """Of these sub-tasks, those that have ended."""

        def work(execute: Execute) -> list[Report]:
            found = [row for key in keys for row in execute(ENDED, {"run": self._run, "key": key}).found]
            return [Report(key, reply if status == "done" else None, version) for key, status, reply, version in found]

        return self._database.run(work)

    def tasks(self, step: int, policy: str) -> list[tuple[SubTask, Report | None]]:
        """Every sub-task of a step for one policy, in the order of keys, with how it ended."""
        found = self._ask(TASKS, step=step, policy=policy)
        return [
            (
                SubTask(key, policy, step, rollout, body),
                Report(key, reply if status == "done" else None, version) if status in ("done", "dead") else None,
            )
            for key, rollout, body, status, reply, version in found
        ]

    # ----- Outcomes: what the rollouts of a step earned

    def put_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Record outcomes. Raises ValueError if one is there already, and differs."""

        def work(execute: Execute) -> None:
            for outcome in outcomes:
                body = json.dumps(dict(outcome.values), sort_keys=True)
                values = {"run": self._run, "rollout": outcome.rollout, "step": outcome.step}
                execute(OUTCOME, {**values, "question": outcome.question, "body": body})
                ((known,),) = execute(KNOWN, {"run": self._run, "rollout": outcome.rollout}).found
                if known != body:
                    raise ValueError(f"rollout {outcome.rollout} has the outcome {known}: it cannot become {body}")

        self._database.run(work)

    def seal(self, step: int, rollouts: int) -> None:
        """Say that `step` has so many rollouts, and that all of their sub-tasks have been put."""
        self._change(SEAL, step=step, rollouts=rollouts)

    def outcomes(self, step: int) -> list[Outcome] | None:
        """All outcomes of a step, in the order of rollouts; None while it is not sealed or some are missing."""

        def work(execute: Execute) -> list[Outcome] | None:
            sealed = execute(SEALED, {"run": self._run, "step": step}).found
            found = execute(OUTCOMES, {"run": self._run, "step": step}).found
            if not sealed or len(found) < sealed[0][0]:
                return None
            return [Outcome(rollout, step, question, json.loads(body)) for rollout, question, body in found]

        return self._database.run(work)

    # ----- Weights and signs of life

    def publish(self, pointer: Pointer, expected: int) -> bool:
        """Point at new weights, if the version pointed at is `expected` (-1: none yet); whether they are pointed at."""
        values = {"policy": pointer.policy, "version": pointer.version, "uri": pointer.uri, "digest": pointer.digest}

        def work(execute: Execute) -> bool:
            found = execute(POINTER, {"run": self._run, "policy": pointer.policy}).found
            if found and found[0] == (pointer.version, pointer.uri, pointer.digest):
                return True  # said before, and the answer was lost on its way
            if (found[0][0] if found else -1) != expected:
                return False
            return execute(POINT, {"run": self._run, "expected": expected, **values}).changed == 1

        return self._database.run(work)

    def pointer(self, policy: str) -> Pointer | None:
        """The newest weights of a policy."""
        found = self._ask(POINTER, policy=policy)
        return Pointer(policy, *found[0]) if found else None

    def beat(self, server: str, text: str) -> None:
        """Say that a server lives, and what it is doing."""
        self._change(BEAT, server=server, body=text)

    def beats(self) -> list[Beat]:
        """Every server's last sign of life."""
        return [Beat(server, age, text) for server, age, text in self._ask(BEATS)]

    def _prepare(self, execute: Execute) -> None:
        execute("{alone}", {})  # servers start together, and tables are made once
        for table in TABLES:
            execute(table, {})
        found = execute("SELECT version FROM team_schema", {}).found
        if not found:
            execute("INSERT INTO team_schema (version) VALUES (:version)", {"version": SCHEMA})
        elif found != [(SCHEMA,)]:
            raise ValueError(f"the store has schema {found[0][0]}, this program writes {SCHEMA}: use another database")

    def _change(self, statement: str, **values: Any) -> bool:
        return self._database.run(lambda execute: execute(statement, {"run": self._run, **values}).changed > 0)

    def _ask(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        return self._database.run(lambda execute: execute(statement, {"run": self._run, **values}).found)
