"""What a store promises, to SQLite and to PostgreSQL alike."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from metaagentx.teams import database, schema
from metaagentx.teams.journal import Journal
from metaagentx.teams.learner import Superseded, publish
from metaagentx.teams.options import ExchangeOptions
from metaagentx.teams.records import Outcome, Pointer, Report, SubTask, Trained
from metaagentx.teams.store import Store


@pytest.fixture
def store(url, name):
    store = Store(url, name)
    yield store
    store.close()


def tasks(*keys, policy="sub", step=0):
    return [SubTask(key, policy, step, f"rollout of {key}", f"what is {key}?") for key in keys]


def leased(store, most=10, seconds=60.0, last=9):
    return store.lease("sub", most, seconds, "server", last)


def test_a_sub_task_put_twice_is_there_once(store):
    assert store.put(tasks("a", "b"), depth=10) == 2
    assert store.put(tasks("b", "a", "c"), depth=10) == 3
    assert [lease.task for lease in leased(store)] == tasks("a", "b", "c")
    assert store.put(tasks("a"), depth=10) == 1
    assert leased(store) == []


def test_a_policy_gets_its_own_sub_tasks_oldest_first_and_one_server_each(store):
    store.put(tasks("z", "a"), depth=10)
    store.put(tasks("other", policy="critic"), depth=10)
    (first,), (second,) = leased(store, most=1), leased(store, most=1)
    assert (first.task.key, second.task.key) == ("z", "a")
    assert leased(store) == []
    with pytest.raises(ValueError, match="several policies"):
        store.put([*tasks("x"), *tasks("y", policy="critic")], depth=10)


def test_no_more_are_leased_than_asked_for_whatever_a_planner_thinks_of_the_table(store):
    """That it has one row lets PostgreSQL look the sub-tasks up by number, and choose them anew for each."""
    store._database.run(lambda execute: execute("DELETE FROM team_tasks", {}))  # those of other tests
    store.put(tasks("0"), depth=99)
    store._database.run(lambda execute: execute("ANALYZE team_tasks", {}))
    store.put(tasks(*map(str, range(1, 20))), depth=99)
    assert [lease.task.key for lease in leased(store, most=2)] == ["0", "1"]
    assert [lease.task.key for lease in leased(store, most=3)] == ["2", "3", "4"]


def test_runs_in_one_database_do_not_see_each_other(url, store):
    other = Store(url, "another run")
    store.put(tasks("a"), depth=10)
    assert leased(other) == []
    assert other.reports(["a"]) == []
    other.close()


def test_what_does_not_fit_is_put_later_and_nothing_is_lost(store):
    assert store.put(tasks("a", "b", "c"), depth=2) == 2
    assert store.put(tasks("c"), depth=2) == 0
    first, _ = leased(store)
    assert store.put(tasks("c"), depth=2) == 0, "what is worked on counts"
    store.finish(first, "done", 0)
    assert store.put(tasks("c"), depth=2) == 1
    assert [lease.task.key for lease in leased(store)] == ["c"]


def test_a_result_comes_with_the_version_that_made_it(store):
    store.put(tasks("a", "b"), depth=10)
    first, _ = leased(store)
    assert store.reports(["a", "b"]) == []
    assert store.finish(first, "4 \x1f ü", 7)
    assert store.reports(["a", "b"]) == [Report("a", "4 \x1f ü", 7)]


def test_handing_in_again_is_harmless(store):
    store.put(tasks("a"), depth=10)
    (lease,) = leased(store)
    assert store.finish(lease, "4", 1)
    assert store.finish(lease, "4", 1)
    assert store.reports(["a"]) == [Report("a", "4", 1)]


def test_an_expired_lease_is_taken_again_and_its_old_holder_changes_nothing(store):
    store.put(tasks("a"), depth=10)
    (late,) = leased(store, seconds=0.05)
    assert leased(store) == []
    time.sleep(0.1)
    assert not store.renew(late, 60), "expired, though nobody has taken it"
    assert not store.finish(late, "too late", 0)
    (again,) = leased(store)
    assert again.task == late.task
    assert again.fence == late.fence + 1
    assert not store.finish(late, "too late", 0)
    assert not store.release(late)
    assert store.finish(again, "in time", 1)
    assert store.reports(["a"]) == [Report("a", "in time", 1)]


def test_a_renewed_lease_does_not_expire(store):
    store.put(tasks("a"), depth=10)
    (lease,) = leased(store, seconds=0.2)
    assert store.renew(lease, 60)
    time.sleep(0.3)
    assert leased(store) == []
    assert store.finish(lease, "4", 0)


def test_what_nobody_can_do_becomes_a_dead_letter(url, name):
    store = Store(url, name, ExchangeOptions(attempts=2, losses=2))
    store.put(tasks("given up", "died on"), depth=10)
    for lease in leased(store):
        assert store.release(lease) if lease.task.key == "given up" else store.renew(lease, 0.05)
    time.sleep(0.1)
    for lease in leased(store):
        assert lease.fence == 2
        assert store.release(lease) if lease.task.key == "given up" else store.renew(lease, 0.05)
    time.sleep(0.1)
    assert leased(store) == []
    assert store.reports(["given up", "died on"]) == [Report("given up", None, -1), Report("died on", None, -1)]
    store.close()


def test_servers_that_die_use_up_no_attempts_and_failures_no_losses(url, name):
    store = Store(url, name, ExchangeOptions(attempts=3, losses=6))
    store.put(tasks("failed", "lost"), depth=10)
    for _ in range(3):
        (failed,) = store.lease("sub", 1, 60.0, "another", 9)
        assert failed.task.key == "failed"
        assert store.release(failed)
    for fence in range(1, 6):
        (lost,) = leased(store)
        assert (lost.task.key, lost.fence) == ("lost", fence)
        store.reclaim("server")
    (lost,) = leased(store)
    assert store.finish(lost, "at last", 0)
    assert store.reports(["lost", "failed"]) == [Report("failed", None, -1), Report("lost", "at last", 0)]
    store.close()


def test_what_kills_its_servers_takes_nothing_with_it(url, name):
    """Of 32 sub-tasks side by side one is the cause, and each time all that are leased with it are lost."""
    store = Store(url, name, ExchangeOptions(losses=20))
    store.put(tasks(*(f"{number:02}" for number in range(32))), depth=99)
    deaths = 0
    while batch := leased(store, most=32):
        if any(lease.task.key == "07" for lease in batch):
            store.reclaim("server")
            deaths += 1
        else:
            assert all(store.finish(lease, "done", 0) for lease in batch)
    assert deaths == 20
    reports = store.reports(f"{number:02}" for number in range(32))
    assert [report.key for report in reports if report.text is None] == ["07"]
    assert len(reports) == 32
    store.close()


def test_what_lost_two_leases_is_leased_with_nothing_beside_it_and_no_other_is(store):
    store.put(tasks("a", "b"), depth=99)
    for _ in range(2):
        assert len(leased(store)) == 2
        store.reclaim("server")
    store.put(tasks("c", "d"), depth=99)
    (first,) = leased(store)
    assert (first.task.key, leased(store)) == ("a", [])
    assert store.finish(first, "done", 0)
    (second,) = leased(store)
    assert (second.task.key, leased(store)) == ("b", [])
    store.give_back("server")
    others = store.lease("sub", 1, 60.0, "another", 9)
    assert [lease.task.key for lease in others] == ["b"], "and it is still one to be done alone"
    assert store.finish(others[0], "done", 0)
    assert [lease.task.key for lease in leased(store)] == ["c", "d"]


def test_a_step_is_whole_when_it_is_sealed_and_every_outcome_is_in(store):
    rows = [Outcome(f"q0/{k}", 3, "q0", {"correct": k / 2, "format": 1.0}) for k in range(2)]
    store.put_outcomes(rows[1:])
    assert store.outcomes(3) is None
    store.seal(3, 2)
    assert store.outcomes(3) is None
    store.put_outcomes(rows)
    store.seal(3, 2)
    assert store.outcomes(3) == rows
    assert store.outcomes(4) is None
    assert store.put_outcomes([Outcome("q0/1", 3, "q0", {"correct": 0.0, "format": 1.0})]) == rows[1:]
    assert store.outcomes(3) == rows, "what was said first stays"


def test_all_sub_tasks_of_a_step_can_be_looked_over(store):
    store.put(tasks("b", "a", "c", step=5), depth=10)
    store.put(tasks("d", step=6), depth=10)
    lease = leased(store, most=1)[0]
    store.finish(lease, "4", 2)
    assert [(task.key, report) for task, report in store.tasks(5, "sub")] == [
        ("b", Report("b", "4", 2)), ("a", None), ("c", None),
    ]  # fmt: skip


def test_weights_move_on_from_the_expected_version_alone(store):
    def pointer(version, uri="file:///w"):
        return Pointer("main", version, f"{uri}/{version}", f"{version:064}")

    assert store.pointer("main") is None
    assert not store.publish(pointer(5), expected=4)
    assert store.publish(pointer(0), expected=-1)
    assert store.publish(pointer(1), expected=0)
    assert store.publish(pointer(1), expected=0), "the same again, after a lost answer"
    assert not store.publish(pointer(1, "file:///elsewhere"), expected=0)
    assert store.pointer("main") == pointer(1)
    assert store.pointer("sub") is None


def test_the_stores_clock_says_how_long_a_server_has_been_silent(store):
    store.beat("main", "step 1")
    time.sleep(0.2)
    store.beat("sub", "waiting")
    main, sub = store.beats()
    assert (main.server, main.text, sub.server, sub.text) == ("main", "step 1", "sub", "waiting")
    assert 0.2 <= main.age < 60
    assert sub.age < main.age


def test_another_schema_is_refused(url, name):
    store = Store(url, name)
    change = "UPDATE team_schema SET version = :version"
    store._database.run(lambda execute: execute(change, {"version": 99}))
    try:
        with pytest.raises(ValueError, match="schema 99"):
            Store(url, name)
    finally:
        store._database.run(lambda execute: execute(change, {"version": schema.SCHEMA}))
        store.close()


@pytest.mark.parametrize("bad", ["sqlite://x.db", "mysql://x", "team.db", "sqlite:///"])
def test_a_url_that_cannot_be_used_is_refused(bad):
    with pytest.raises(ValueError, match="store"):
        Store(bad, "run")


def test_a_store_that_is_no_database_or_lets_nobody_in_is_refused_in_words(tmp_path):
    (tmp_path / "text.db").write_text("hello" * 1000)
    with pytest.raises(ValueError, match=r"text\.db cannot be used: file is not a database"):
        Store(f"sqlite:///{tmp_path}/text.db", "run")
    with pytest.raises(ValueError, match=r"cannot be written"):
        Store(f"sqlite:///{tmp_path}/text.db/team.db", "run")
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match=r"does not let us in"):
        Store("postgresql://team:secret@127.0.0.1:1/postgres", "run")


def test_a_sub_task_cannot_become_another(store):
    store.put(tasks("a"), depth=10)
    with pytest.raises(ValueError, match="sub-task a is there already"):
        store.put([SubTask("a", "sub", 0, "rollout of a", "what is b?")], depth=10)


def test_sub_tasks_of_later_steps_are_not_leased_yet(store):
    store.put(tasks("a", step=1) + tasks("b", step=2) + tasks("c", step=3), depth=10)
    assert [lease.task.key for lease in leased(store, last=2)] == ["a", "b"]
    assert leased(store, last=2) == []
    assert [lease.task.key for lease in leased(store, last=3)] == ["c"]


def test_an_expired_lease_of_a_later_step_is_no_reason_to_write_at_every_look(store):
    store.put(tasks("a", step=3), depth=10)
    assert leased(store, seconds=-1.0, last=3)
    assert store._ask(schema.THERE, policy="sub", last=2) == []
    assert leased(store, last=2) == []
    assert store._ask(schema.THERE, policy="sub", last=3) == [(1,)]
    assert [lease.fence for lease in leased(store, last=3)] == [2]


def test_a_server_that_is_back_has_its_sub_tasks_again_at_once_with_new_fences(store):
    store.put(tasks("a", "b"), depth=10)
    (mine,) = store.lease("sub", 1, 60.0, "mine", 9)
    (others,) = store.lease("sub", 1, 60.0, "another's", 9)
    store.reclaim("mine")
    (again,) = leased(store)
    assert (again.task, again.fence) == (mine.task, 2)
    assert not store.finish(mine, "too late", 0)
    assert store.finish(others, "in time", 0)


def test_sub_tasks_that_are_given_back_are_not_lost_and_get_new_fences(url, name):
    store = Store(url, name, ExchangeOptions(attempts=1, losses=1))
    store.put(tasks("a"), depth=10)
    for fence in range(1, 4):
        (lease,) = store.lease("sub", 1, 60.0, "mine", 9)
        assert lease.fence == fence
        store.give_back("another's")
        assert leased(store) == []
        store.give_back("mine")
        assert not store.finish(lease, "too late", 0)
    (again,) = store.lease("sub", 1, 60.0, "mine", 9)
    store.reclaim("mine")
    assert leased(store) == [], "its server died: that is one lost lease, as many as there may be"
    assert store.reports(["a"]) == [Report("a", None, -1)]
    assert again.fence == 4
    store.close()


def test_a_policy_is_its_first_servers(store):
    assert store.own("sub", "mine") == store.own("sub", "another's") == "mine"
    assert store.own("main", "another's") == "another's"


def test_what_was_trained_on_is_recorded_once_and_cannot_change(store):
    a, b = Trained(0.5, 2**32 - 1), Trained(None, 0)
    store.trained("sub", 3, {"a": a, "b": b})
    store.trained("sub", 3, {"b": b, "a": a})
    store.trained("main", 3, {"a": Trained(1.0, 7)})
    assert store.samples("sub") == [(3, "a", a), (3, "b", b)]
    for other in (
        {"a": replace(a, reward=0.25), "b": b},
        {"a": replace(a, digest=7), "b": b},
        {"a": a},
        {"a": a, "b": b, "c": b},
    ):
        with pytest.raises(ValueError, match="step 3 of policy 'sub' was made of other samples"):
            store.trained("sub", 3, other)
    assert store.samples("sub") == [(3, "a", a), (3, "b", b)]


def test_the_first_server_says_what_a_run_is_about_and_the_last_step_ends_it(store):
    assert store.about() is None
    assert store.agree("this") == "this"
    assert store.agree("that") == "this"
    assert store.about() == "this"
    assert store.ended() is None
    store.end(7)
    assert store.ended() == 7


def work_off(url, name, number, count, quit_after):
    """Lease and finish until all is done; a server that dies holding a lease says nothing."""
    store = Store(url, name, ExchangeOptions(losses=100))
    finished = 0
    while True:
        batch = store.lease("sub", 3, 0.5, f"server {number}", 0)
        for lease in batch:
            if quit_after is not None and finished >= quit_after:
                return
            finished += store.finish(lease, f"{lease.task.key} by {number}", number)
        if not batch and len(store.reports(map(str, range(count)))) == count:
            return


def test_servers_that_die_with_leases_lose_nothing_and_repeat_nothing(url, name):
    count = 120
    store = Store(url, name, ExchangeOptions(losses=100))
    spawn = multiprocessing.get_context("spawn")
    servers = [
        spawn.Process(target=work_off, args=(url, name, number, count, quits))
        for number, quits in enumerate((None, 10, 25))
    ]
    for server in servers:
        server.start()
    waiting = tasks(*map(str, range(count)))
    while waiting:
        waiting = waiting[store.put(waiting[:7], depth=20) :]
    for server in servers:
        server.join(60)
        assert server.exitcode == 0
    reports = store.reports(map(str, range(count)))
    assert sorted(int(report.key) for report in reports) == list(range(count))
    assert all(report.text == f"{report.key} by {report.version}" for report in reports)
    store.close()


def test_servers_that_start_together_make_one_store(tmp_path):
    """Again and again, since it is a race of milliseconds."""
    for number in range(40):
        with ThreadPoolExecutor(4) as threads:
            for store in threads.map(lambda _, n=number: Store(f"sqlite:///{tmp_path}/{n}.db", "run"), range(4)):
                store.close()


def test_a_lost_connection_is_made_again_and_its_transaction_with_it(postgres, name):
    store, other = Store(postgres, name), Store(postgres, name)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'team'"
    store.put(tasks("a"), depth=10)
    other._database.run(lambda execute: execute(cut, {}))
    assert store.put(tasks("b"), depth=10) == 1
    other._database.run(lambda execute: execute(cut, {}))
    assert [lease.task.key for lease in leased(store)] == ["a", "b"]
    store.close()
    other.close()


@contextmanager
def locked(path):
    """Another program is in the middle of a transaction."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def test_a_database_that_another_program_holds_is_waited_for_and_said_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(database, "TOLD", 0.5)
    path = tmp_path / "team.db"
    store = Store(f"sqlite:///{path}", "run", who="policy 'sub'")
    with ThreadPoolExecutor(1) as waiting, locked(path):
        put = waiting.submit(store.put, tasks("a"), 10)
        while not caplog.records:
            assert not put.done()
            time.sleep(0.05)
        assert store._database._patience.since is not None
    assert put.result() == 1
    said = rf"^policy 'sub' waits for the database {path}, since \d+ s: database is locked; another program holds it: "
    assert re.match(
        said + rf"see which \(fuser {path}\), and end its transaction or it: it goes on", caplog.messages[0]
    )
    assert [lease.task.key for lease in leased(store)] == ["a"]
    assert store._database._patience.since is None
    store.close()


def test_a_database_that_stays_locked_is_an_error_in_words_and_all_threads_lose_patience_together(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(database, "PATIENCE", 0.5)
    path = tmp_path / "journal.db"
    journal = Journal(path, "policy 'sub'")
    with locked(path), ThreadPoolExecutor(4) as threads:
        begun = time.monotonic()
        waiting = [threads.submit(journal.forget, 3) for _ in range(4)]
        for each in waiting:
            with pytest.raises(
                database.StoreError, match=rf"^policy 'sub' waits for the database {path}.*same command"
            ):
                each.result()
        assert time.monotonic() - begun < 20
    journal.forget(3)
    journal.close()


@contextmanager
def full_at(bytes_):
    """No file becomes larger than this: SQLite meets it where a transaction is committed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_is_an_error_in_words_and_no_transaction_stays_open(tmp_path):
    path = tmp_path / "team.db"
    store = Store(f"sqlite:///{path}", "run", who="policy 'sub'")
    with full_at((tmp_path / "team.db-wal").stat().st_size):
        wanted = rf"^policy 'sub' cannot use the database {path}: (disk I/O error|database or disk is full); mend that"
        with pytest.raises(database.StoreError, match=wanted):
            store.put(tasks("a"), depth=10)
    assert not store._database._connection.in_transaction
    assert store.put(tasks("a"), depth=10) == 1
    assert [lease.task.key for lease in leased(store)] == ["a"]
    store.close()


def test_a_server_that_stays_away_is_an_error_in_words_and_without_its_password(postgres, name, monkeypatch):
    monkeypatch.setattr(database, "PATIENCE", 0.5)
    store = Store(postgres.replace("team@", "team:secret@"), name, who="policy 'sub'")
    store._database._url = "postgresql://team:secret@127.0.0.1:1/postgres"
    store._database._connection.close()
    wanted = r"^policy 'sub' waits for the database 'postgres' at 127\.0\.0\.1, .*; see that it runs and lets us in"
    with pytest.raises(database.StoreError, match=wanted) as error:
        store.put(tasks("a"), depth=10)
    assert "secret" not in str(error.value)
    store.close()


def test_two_servers_of_one_policy_are_noticed(store):
    def pointer(version, digest):
        return Pointer("sub", version, f"/checkpoints/{version}", digest)

    publish(store, pointer(0, "cold"))
    publish(store, pointer(3, "mine"))
    publish(store, pointer(3, "mine"))
    publish(store, pointer(2, "on the way again"))
    assert store.pointer("sub") == pointer(3, "mine")
    with pytest.raises(Superseded, match="not those published"):
        publish(store, pointer(3, "another's"))
