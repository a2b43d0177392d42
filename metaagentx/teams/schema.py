"""The tables of a store, and every statement that is run on them; `database` fills in the words in braces."""

from __future__ import annotations

SCHEMA = 3

TABLES = (
    "CREATE TABLE IF NOT EXISTS team_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS team_tasks (
        number {serial}, run TEXT NOT NULL, key TEXT NOT NULL, policy TEXT NOT NULL, step BIGINT NOT NULL,
        rollout TEXT NOT NULL, body TEXT NOT NULL, status TEXT NOT NULL, fence BIGINT NOT NULL,
        failures BIGINT NOT NULL, losses BIGINT NOT NULL, until DOUBLE PRECISION, holder TEXT, reply TEXT,
        version BIGINT,
        UNIQUE (run, key))""",
    "CREATE INDEX IF NOT EXISTS team_tasks_open ON team_tasks (run, policy, status, number)",
    """CREATE TABLE IF NOT EXISTS team_outcomes (
        run TEXT NOT NULL, rollout TEXT NOT NULL, step BIGINT NOT NULL, question TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (run, rollout))""",
    """CREATE TABLE IF NOT EXISTS team_steps (
        run TEXT NOT NULL, step BIGINT NOT NULL, rollouts BIGINT NOT NULL, PRIMARY KEY (run, step))""",
    """CREATE TABLE IF NOT EXISTS team_pointers (
        run TEXT NOT NULL, policy TEXT NOT NULL, version BIGINT NOT NULL, uri TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (run, policy))""",
    """CREATE TABLE IF NOT EXISTS team_runs (
        run TEXT NOT NULL, about TEXT NOT NULL, ended BIGINT, PRIMARY KEY (run))""",
    """CREATE TABLE IF NOT EXISTS team_servers (
        run TEXT NOT NULL, policy TEXT NOT NULL, server TEXT NOT NULL, PRIMARY KEY (run, policy))""",
    """CREATE TABLE IF NOT EXISTS team_trained (
        run TEXT NOT NULL, policy TEXT NOT NULL, step BIGINT NOT NULL, key TEXT NOT NULL, reward DOUBLE PRECISION,
        digest BIGINT NOT NULL, PRIMARY KEY (run, policy, step, key))""",
    """CREATE TABLE IF NOT EXISTS team_beats (
        run TEXT NOT NULL, server TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (run, server))""",
)

PUT = """INSERT INTO team_tasks (run, key, policy, step, rollout, body, status, fence, failures, losses)
    VALUES (:run, :key, :policy, :step, :rollout, :body, 'waiting', 0, 0, 0) ON CONFLICT (run, key) DO NOTHING"""
SAID = "SELECT body FROM team_tasks WHERE run = :run AND key = :key"
OPEN = """SELECT count(*) FROM team_tasks
    WHERE run = :run AND policy = :policy AND status IN ('waiting', 'leased')"""
THERE = """SELECT 1 FROM team_tasks
    WHERE run = :run AND policy = :policy AND step <= :last
        AND status IN ('waiting', 'leased') AND (status = 'waiting' OR until < {now}) LIMIT 1"""
EXPIRE = """UPDATE team_tasks SET losses = losses + 1, version = -1,
        status = CASE WHEN losses + 1 >= :losses THEN 'dead' ELSE 'waiting' END
    WHERE run = :run AND policy = :policy AND status = 'leased' AND until < {now}"""
HELD = """SELECT losses FROM team_tasks
    WHERE run = :run AND policy = :policy AND status = 'leased' AND holder = :holder AND until >= {now}"""
# Chosen before anything is changed: a planner may run a mere sub-select again for each row, with its LIMIT.
LEASE = """WITH chosen AS MATERIALIZED (
        SELECT number FROM team_tasks
        WHERE run = :run AND policy = :policy AND step <= :last AND status = 'waiting'
            AND losses >= :least AND losses < :below
        ORDER BY losses, number LIMIT :most {skip_locked})
    UPDATE team_tasks
    SET status = 'leased', fence = fence + 1, until = {now} + :seconds, holder = :holder
    WHERE number IN (SELECT number FROM chosen)
    RETURNING number, key, policy, step, rollout, body, fence"""
RENEW = """UPDATE team_tasks SET until = {now} + :seconds
    WHERE run = :run AND key = :key AND status = 'leased' AND fence = :fence AND until >= {now}"""
FINISH = """UPDATE team_tasks SET status = 'done', reply = :reply, version = :version
    WHERE run = :run AND key = :key AND status = 'leased' AND fence = :fence AND until >= {now}"""
RELEASE = """UPDATE team_tasks SET failures = failures + 1, version = -1,
        status = CASE WHEN failures + 1 >= :attempts THEN 'dead' ELSE 'waiting' END
    WHERE run = :run AND key = :key AND status = 'leased' AND fence = :fence"""
GIVE_BACK = """UPDATE team_tasks SET status = 'waiting'
    WHERE run = :run AND holder = :holder AND status = 'leased'"""
RECLAIM = """UPDATE team_tasks SET until = 0 WHERE run = :run AND holder = :holder AND status = 'leased'"""
ENDED = """SELECT key, status, reply, version FROM team_tasks
    WHERE run = :run AND key IN ({keys}) AND status IN ('done', 'dead') ORDER BY number"""
FINISHED = """SELECT 1 FROM team_tasks WHERE run = :run AND key = :key AND status = 'done' AND fence = :fence"""
TASKS = """SELECT key, rollout, body, status, reply, version FROM team_tasks
    WHERE run = :run AND step = :step AND policy = :policy ORDER BY number"""
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

OWN = """INSERT INTO team_servers (run, policy, server) VALUES (:run, :policy, :server)
    ON CONFLICT (run, policy) DO NOTHING"""
OWNER = "SELECT server FROM team_servers WHERE run = :run AND policy = :policy"
AGREE = "INSERT INTO team_runs (run, about) VALUES (:run, :about) ON CONFLICT (run) DO NOTHING"
ABOUT = "SELECT about FROM team_runs WHERE run = :run"
END = "UPDATE team_runs SET ended = :steps WHERE run = :run"
HAS_ENDED = "SELECT ended FROM team_runs WHERE run = :run AND ended IS NOT NULL"
TRAIN = """INSERT INTO team_trained (run, policy, step, key, reward, digest)
    VALUES (:run, :policy, :step, :key, :reward, :digest) ON CONFLICT (run, policy, step, key) DO NOTHING"""
TRAINED_IN = "SELECT key, reward, digest FROM team_trained WHERE run = :run AND policy = :policy AND step = :step"
TRAINED = "SELECT step, key, reward, digest FROM team_trained WHERE run = :run AND policy = :policy ORDER BY step, key"
STEPS = "SELECT step FROM team_steps WHERE run = :run ORDER BY step"
POLICIES = "SELECT DISTINCT policy FROM team_tasks WHERE run = :run ORDER BY policy"
